//! The published U-Nets of denoising diffusion models, by their configurations: trainable parameters, counted without
//! making any.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B (35.7 million for CIFAR-10, 114 million for LSUN and
//! CelebA-HQ); Song et al. 2021, arXiv 2011.13456, its DDPM network.
//!
//! `cargo run --release -p sde-nets --example count`
#![allow(clippy::print_stdout, reason = "an example that reports")]

use sde_core::Prediction;
use sde_nets::{Resampling, Result, TimeFeatures, Unet, UnetConfig, UpAttention, count_parameters};

// Ho et al., CIFAR-10             32×32     35746307
// Song et al., CIFAR-10           32×32     35218947
// Ho et al., LSUN and CelebA-HQ  256×256   113673219
fn main() -> Result<()> {
    let ho = UnetConfig {
        prediction: Prediction::Noise,
        channels: 128,
        multipliers: vec![1, 2, 2, 2],
        blocks: 2,
        attention: vec![16],
        up_attention: UpAttention::EveryBlock,
        heads: 1,
        dropout: 0.1,
        resampling: Resampling::Conv,
        groups: Some(32),
        classes: None,
        time: TimeFeatures::Sinusoidal {
            max_period: 10_000.0,
            freq_shift: 1,
            flip_sin_to_cos: false,
            time_scale: 1.0,
            time_shift: 0.0,
        },
    };
    let song = UnetConfig { up_attention: UpAttention::LastBlock, ..ho.clone() };
    let large = UnetConfig { multipliers: vec![1, 1, 2, 2, 4, 4], dropout: 0.0, ..ho.clone() };
    for (name, config, size) in [
        ("Ho et al., CIFAR-10", &ho, 32),
        ("Song et al., CIFAR-10", &song, 32),
        ("Ho et al., LSUN and CelebA-HQ", &large, 256),
    ] {
        let count = count_parameters(|b| Unet::new(b, config, &[3, size, size]))?;
        println!("{name:<30} {size:>3}×{size:<3} {count:>11}");
    }
    Ok(())
}
