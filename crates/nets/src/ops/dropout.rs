//! Dropout: `y = x m / (1 − p)` with independent m ∈ {0, 1}, P(m = 0) = p.
//!
//! The mask of a sample is addressed by its place in training (step, sample) and by the layer, not by the
//! batch that it happens to be in: a large batch and the same samples in micro-batches see the same masks.
//!
//! Reference: Srivastava et al. 2014, JMLR 15(56).

use candle_core::Tensor;
use rayon::prelude::*;
use sde_core::noise::{BatchNoise, Stream};

use crate::{Error, Result};

/// Drops entries of `x` with probability `rate`; `site` is the layer's address.
///
/// # Shapes
/// `x` `[B, …]`, B the number of samples that `noise` addresses.
///
/// # Errors
/// [`Error::Shape`] where the number of samples differs.
pub fn dropout(x: &Tensor, rate: f64, noise: &BatchNoise, site: u32) -> Result<Tensor> {
    let batch = x.dim(0)?;
    if batch != noise.samples.len() {
        return Err(Error::Shape {
            what: "dropout",
            expected: format!("masks for a batch of {batch}"),
            found: format!("{} sample addresses", noise.samples.len()),
        });
    }
    let entries = x.elem_count() / batch.max(1);
    let mut mask = vec![0f32; x.elem_count()];
    // An entry is dropped when 32 random bits, as a fraction of 2³², lie below the rate.
    let threshold = rate * 2f64.powi(32);
    let kept = (1.0 / (1.0 - rate)) as f32;
    let draws = noise.draws(Stream::Dropout, site);
    mask.par_chunks_mut(entries.max(1)).zip(draws).for_each(|(row, mut draws)| {
        row.iter_mut().for_each(|m| *m = if f64::from(draws.next_u32()) < threshold { 0.0 } else { kept });
    });
    let mask = Tensor::from_vec(mask, x.dims(), &candle_core::Device::Cpu)?;
    Ok((x * mask.to_dtype(x.dtype())?.to_device(x.device())?)?)
}
