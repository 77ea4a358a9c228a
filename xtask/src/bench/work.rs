//! What this project's worker does for a case.

mod features;
mod fitting;
pub mod network;
mod operator;
mod sampling;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};

use super::case::Case;
use super::clock::{Clock, Elapsed};

/// Something prepared, to be done and timed.
pub trait Work {
    /// Does it once.
    fn run(&mut self) -> Result<()>;

    /// The trainable scalars, where there is a network.
    fn parameters(&self) -> Option<usize> {
        None
    }

    /// Does it a number of times.
    fn measure(&mut self, iterations: usize, device: &Device) -> Result<Elapsed> {
        device.synchronize()?;
        let clock = Clock::start();
        for _ in 0..iterations {
            self.run()?;
        }
        device.synchronize()?;
        Ok(clock.elapsed())
    }
}

/// Work without a network.
struct Plain<F>(F);

impl<F: FnMut() -> Result<()>> Work for Plain<F> {
    fn run(&mut self) -> Result<()> {
        (self.0)()
    }
}

/// Makes ready.
pub fn prepare(case: Case, device: &Device) -> Result<Box<dyn Work>> {
    Ok(match case {
        Case::Gemm { size } => gemm(size, device)?,
        Case::Op { op, pass, batch } => operator::prepare(&op, pass, batch, device)?,
        Case::Forward { net, shape, batch } => Box::new(network::Forward::new(&net, &shape, batch, device)?),
        Case::Features { batch, size } => Box::new(features::Features::new(batch, size, device)?),
        Case::Fit { preset, synthetic } => Box::new(fitting::Fitting::new(&preset, synthetic, device)?),
        Case::Sampling { net, shape, batch, process, sampler, .. } => {
            Box::new(sampling::Sampling::new(&net, shape, batch, (&process, *sampler), device)?)
        }
        Case::Step { .. } => bail!("a step is PyTorch's; this side is told to fit"),
    })
}

/// A product on every thread at once, as the operators use the `gemm` crate: one thread inside each product.
fn gemm(size: usize, device: &Device) -> Result<Box<dyn Work>> {
    // An accelerator is busy with one.
    let products = if device.is_cpu() { rayon::current_num_threads() } else { 1 };
    let pairs: Vec<[Tensor; 2]> = (0..products)
        .map(|i| Ok([normal(2 * i, size, &[size], device)?, normal(2 * i + 1, size, &[size], device)?]))
        .collect::<Result<_>>()?;
    let product = |[a, b]: &[Tensor; 2]| a.matmul(b).map(drop);
    // An accelerator wants all work from one thread.
    let on_host = device.is_cpu();
    Ok(Box::new(Plain(move || {
        let done =
            if on_host { pairs.par_iter().try_for_each(product) } else { pairs.iter().try_for_each(product) };
        Ok(done?)
    })))
}

/// `[batch, shape…]` standard normal entries.
fn normal(seed: usize, batch: usize, shape: &[usize], device: &Device) -> Result<Tensor> {
    let noise = BatchNoise::new(Noise::new(seed as u64), 0, 0..batch as u32);
    Ok(noise.tensor(Law::Normal, Stream::User, 0, shape, candle_core::DType::F32, device)?)
}
