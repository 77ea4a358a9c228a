//! The memory and the time of a training step (forward and backward) of a network for CIFAR-10, with activation
//! checkpointing and without: the largest memory of the process so far, as Linux counts it.
//!
//! `cargo run --release -p sde-nets --example memory [batch] [ho|ddpmpp] [true|false]`
#![allow(clippy::print_stdout, reason = "an example that reports")]

use std::time::Instant;

use candle_core::{DType, Device};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::{Model, Pass};
use sde_nets::{Builder, Params, Unet, UnetConfig, backward};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Walking a tape recurses, one frame an operation.
    let thread = std::thread::Builder::new().stack_size(1 << 28);
    let steps = thread.spawn(|| steps().map_err(|error| error.to_string()))?;
    Ok(steps.join().map_err(|_| "a step panicked")??)
}

fn steps() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let batch: u32 = arguments.next().map_or(Ok(8), |a| a.parse())?;
    let published = match arguments.next().as_deref() {
        None | Some("ho") => UnetConfig::ho_ddpm(),
        Some("ddpmpp") => UnetConfig::ddpmpp(4),
        Some(other) => return Err(format!("expected `ho` or `ddpmpp`, found {other}").into()),
    };
    let checkpoint: bool = arguments.next().map_or(Ok(false), |a| a.parse())?;
    let config = UnetConfig { checkpoint, ..published };
    let device = Device::Cpu;
    let build = |b: &Builder| Unet::new(b, &config, &[3, 32, 32]);
    let (net, params) = Params::initialise(Noise::new(0), DType::F32, &device, build)?;
    println!("{} parameters, batch {batch}, checkpoint {checkpoint}: {}", params.count(), peak());

    let noise = BatchNoise::new(Noise::new(1), 0, 0..batch);
    let x = noise.tensor(Law::Normal, Stream::User, 0, &[3, 32, 32], DType::F32, &device)?;
    let t = noise.tensor(Law::Uniform, Stream::User, 1, &[], DType::F32, &device)?;
    for _ in 0..2 {
        let start = Instant::now();
        let pass = Pass { dropout: Some(&noise), ..Pass::EVAL };
        let loss = (net.forward(&x, &t, pass)? - &x)?.sqr()?.mean_all()?;
        let forward = start.elapsed().as_secs_f64();
        let gradients = backward(&loss)?;
        let whole = start.elapsed().as_secs_f64();
        assert!(params.iter().all(|(_, var)| gradients.get(var).is_some()));
        println!("forward {forward:.2} s, forward and backward {whole:.2} s, peak {}", peak());
    }
    Ok(())
}

/// The largest resident memory so far.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("unknown".into(), |line| line.trim().to_owned())
}
