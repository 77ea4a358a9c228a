//! Accuracy and diversity of a class-conditional run on the digits, against the weight of classifier-free guidance.
//!
//! `cargo xtask train digits-conditional`, then `cargo run --release -p downstream --example guidance -- checkpoints/00000-digits-conditional`
#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::path::Path;

use candle_core::{DType, Device};
use downstream::classes::{Classifier, measure};
use sde_core::noise::Noise;
use sde_core::process::Vp;
use sde_nets::NetConfig;
use sde_train::{checkpoint, ema_file};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = std::env::args().nth(1).ok_or("name the directory of a run of digits-conditional")?;
    let place = Path::new(&place);
    let config: toml::Table = std::fs::read_to_string(place.join("config.toml"))?.parse()?;
    let net: NetConfig =
        config.get("net").ok_or("the run's config.toml has no section net")?.clone().try_into()?;
    if net.classes() != Some(10) {
        return Err("the run's network has no ten classes: train digits-conditional".into());
    }
    let saved =
        checkpoint::latest(&place.join("checkpoints"))?.checkpoint.ok_or("the run has no checkpoint")?;
    let weights = saved.weights(&ema_file("main"))?;
    let model = weights.freeze(DType::F32, &Device::Cpu, |b| net.build(b, &[1, 8, 8]))?;
    let classifier = Classifier::train(Noise::new(7))?;
    let judge = classifier.held_out()?;
    println!(
        "the classifier is right on {:.3} ± {:.3} of the held-out digits",
        judge.value,
        judge.standard_error.unwrap_or(f64::NAN)
    );
    println!("weight  accuracy          diversity");
    for row in measure(&model, &Vp::STANDARD, &classifier, &[-1.0, 0.0, 0.5, 1.0, 2.0, 4.0], 100)? {
        let error = |error: Option<f64>| error.unwrap_or(f64::NAN);
        println!(
            "{:>6}  {:.4} ± {:.4}   {:.3} ± {:.3}",
            row.weight,
            row.accuracy.value,
            error(row.accuracy.standard_error),
            row.diversity.value,
            error(row.diversity.standard_error)
        );
    }
    Ok(())
}
