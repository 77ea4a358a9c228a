//! Milliseconds of a training step (forward and backward, no optimiser) of the U-Net for 8×8 digits on this
//! machine's CPU.
//!
//! `cargo run --release -p sde-nets --example training_step [batch] [channels]`
#![allow(clippy::print_stdout, reason = "an example that reports")]

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::{Model, Pass};
use sde_nets::{Builder, Params, Unet, UnetConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let batch = arguments.next().transpose()?.unwrap_or(128);
    let channels = arguments.next().transpose()?.unwrap_or(64);
    let config = UnetConfig {
        channels,
        multipliers: vec![1, 2],
        attention: vec![4],
        dropout: 0.0,
        groups: Some(16),
        ..UnetConfig::song_ddpm()
    };
    let device = Device::Cpu;
    let build = |b: &Builder| Unet::new(b, &config, &[1, 8, 8]);
    let (net, params) = Params::initialise(Noise::new(0), DType::F32, &device, build)?;
    println!("{} parameters, batch {batch}", params.count());

    let noise = BatchNoise::new(Noise::new(1), 0, 0..batch as u32);
    let x = noise.tensor(Law::Normal, Stream::User, 0, &[1, 8, 8], DType::F32, &device)?;
    let eps = noise.tensor(Law::Normal, Stream::User, 1, &[1, 8, 8], DType::F32, &device)?;
    let t = noise.tensor(Law::Uniform, Stream::User, 2, &[], DType::F32, &device)?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..20 {
        let start = Instant::now();
        let loss = (net.forward(&x, &t, Pass::EVAL)? - &eps)?.sqr()?.mean_all()?;
        times[0].push(start.elapsed().as_secs_f64() * 1e3);
        let gradients = loss.backward()?;
        times[1].push(start.elapsed().as_secs_f64() * 1e3);
        assert!(params.iter().all(|(_, var)| gradients.get(var.as_tensor() as &Tensor).is_some()));
    }
    for (what, times) in ["forward", "forward and backward"].iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("{what}: median {:.1} ms, best {:.1} ms", times[times.len() / 2], times[0]);
    }
    Ok(())
}
