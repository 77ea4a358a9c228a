//! FID, KID, precision and its family, and copies, of samples of a digits run, by the features of a small classifier.
//!
//! `cargo xtask train digits`, `cargo xtask sample checkpoints/00000-digits -n 1000`, then
//! `cargo run --release -p downstream --example quality -- SAMPLES.npz`
#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::path::Path;

use candle_core::{Device, Tensor};
use downstream::classes::Classifier;
use downstream::quality::{DigitFeatures, measure};
use sde_core::noise::Noise;
use sde_data::read::npy::NpyArray;
use sde_data::read::npz::read_npz;
use sde_data::{Images, Split, digits};
use sde_eval::Estimate;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("name the npz file of samples of a digits run")?;
    let arrays = read_npz(Path::new(&path))?;
    let Some(NpyArray::U8(samples)) = arrays.get("arr_0") else {
        return Err("the file has no array arr_0 of u8".into());
    };
    if samples.ndim() != 4 || samples.shape()[1..] != [8, 8, 1] {
        return Err(format!("expected digits [N, 8, 8, 1], found {:?}", samples.shape()).into());
    }
    let n = samples.shape()[0];
    let samples = Tensor::from_vec(samples.iter().copied().collect::<Vec<u8>>(), (n, 1, 8, 8), &Device::Cpu)?;
    let network = DigitFeatures::new(Classifier::train(Noise::new(7))?, "trained from seed 7");
    let found = measure(&network, &samples, &all(&digits(Split::Train)?)?, &all(&digits(Split::Test)?)?)?;

    let show = |name: &str, e: Estimate| {
        println!("{name:<10} {:>9.4} ± {:.4}", e.value, e.standard_error.unwrap_or(f64::NAN));
    };
    show("FID", found.fid);
    show("KID", found.kid);
    show("precision", found.prdc.precision);
    show("recall", found.prdc.recall);
    show("density", found.prdc.density);
    show("coverage", found.prdc.coverage);
    show("closer", found.memorisation.closer);
    show("authentic", found.memorisation.authentic);
    for suspect in &found.memorisation.suspects {
        println!(
            "sample {} is at {:.3} of training digit {}, {:.2} of what is usual there",
            suspect.sample, suspect.distance, suspect.training, suspect.ratio
        );
    }
    Ok(())
}

fn all(images: &Images) -> Result<Tensor, Box<dyn std::error::Error>> {
    use sde_data::Dataset;
    let pixels: Vec<_> = (0..images.len()).map(|i| images.pixels(i)).collect::<Result<_, _>>()?;
    let levels: Vec<u8> = pixels.iter().flat_map(|p| p.iter().copied()).collect();
    Ok(Tensor::from_vec(levels, (images.len(), 1, 8, 8), &Device::Cpu)?)
}
