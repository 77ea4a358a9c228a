//! The published U-Nets of denoising diffusion models, by their configurations: trainable parameters, counted without
//! making any.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B (35.7 million for CIFAR-10, 114 million for LSUN and
//! CelebA-HQ); Song et al. 2021, arXiv 2011.13456, its DDPM network.
//!
//! `cargo run --release -p sde-nets --example count`
#![allow(clippy::print_stdout, reason = "an example that reports")]

use sde_nets::{Result, Unet, UnetConfig, count_parameters};

// Ho et al., CIFAR-10              32×32     35746307
// Song et al., CIFAR-10            32×32     35218947
// DDPM++                           32×32     61804419
// DDPM++, deep                     32×32    106632579
// NCSN++                           32×32     62758787
// NCSN++, deep                     32×32    107586947
// EDM, DDPM++                      32×32     55733891
// EDM, NCSN++, ten classes         32×32     56400643
// Ho et al., LSUN and CelebA-HQ   256×256   113673219
fn main() -> Result<()> {
    let large = UnetConfig { multipliers: vec![1, 1, 2, 2, 4, 4], dropout: 0.0, ..UnetConfig::ho_ddpm() };
    for (name, config, size) in [
        ("Ho et al., CIFAR-10", UnetConfig::ho_ddpm(), 32),
        ("Song et al., CIFAR-10", UnetConfig::song_ddpm(), 32),
        ("DDPM++", UnetConfig::ddpmpp(4), 32),
        ("DDPM++, deep", UnetConfig::ddpmpp(8), 32),
        ("NCSN++", UnetConfig::ncsnpp(4), 32),
        ("NCSN++, deep", UnetConfig::ncsnpp(8), 32),
        ("EDM, DDPM++", UnetConfig::edm_ddpmpp(None), 32),
        ("EDM, NCSN++, ten classes", UnetConfig::edm_ncsnpp(Some(10)), 32),
        ("Ho et al., LSUN and CelebA-HQ", large, 256),
    ] {
        let count = count_parameters(|b| Unet::new(b, &config, &[3, size, size]))?;
        println!("{name:<30} {size:>3}×{size:<3} {count:>11}");
    }
    Ok(())
}
