//! Dropout: `y = x m / (1 − p)` with independent m ∈ {0, 1}, P(m = 0) = p.
//!
//! The mask of a sample is addressed by its place in training (step, sample) and by the layer, not by the
//! batch that it happens to be in: a large batch and the same samples in micro-batches see the same masks.
//!
//! Reference: Srivastava et al. 2014, JMLR 15(56).

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;
use sde_core::noise::{BatchNoise, Stream};

use super::kernel::{Real, for_real, has_kernels, values};
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
    // An entry is dropped when 32 random bits, as a fraction of 2³², lie below the rate.
    let threshold = rate * 2f64.powi(32);
    let mut kept = vec![0u8; x.elem_count()];
    kept.par_chunks_mut(entries.max(1)).zip(noise.draws(Stream::Dropout, site)).for_each(
        |(row, mut draws)| {
            row.iter_mut().for_each(|m| *m = u8::from(f64::from(draws.next_u32()) >= threshold));
        },
    );
    let scale = f64::from((1.0 / (1.0 - rate)) as f32);
    if has_kernels(x) {
        return Ok(x.contiguous()?.apply_op1(Mask { kept: kept.into(), scale })?);
    }
    let mask = Tensor::from_vec(kept, x.dims(), &candle_core::Device::Cpu)?.to_device(x.device())?;
    Ok((x * (mask.to_dtype(x.dtype())? * scale)?)?)
}

/// Multiplication by `scale` or by 0: its own adjoint. The mask takes a byte an entry, and no gradient.
struct Mask {
    kept: Arc<[u8]>,
    scale: f64,
}

impl Mask {
    fn apply<T: Real>(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<Vec<T>> {
        const ENTRIES: usize = 1 << 14;
        let (x, factors) = (values::<T>(x, layout)?, [T::zero(), T::from_f64(self.scale)]);
        let mut y = vec![T::zero(); x.len()];
        let parts = y.par_chunks_mut(ENTRIES).zip(x.par_chunks(ENTRIES)).zip(self.kept.par_chunks(ENTRIES));
        parts.for_each(|((y, x), kept)| {
            for ((y, &x), &kept) in y.iter_mut().zip(x).zip(kept) {
                *y = x * factors[usize::from(kept & 1)];
            }
        });
        Ok(y)
    }
}

impl CustomOp1 for Mask {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = for_real!(x, T => self.apply::<T>(x, layout))?;
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let mask = Self { kept: self.kept.clone(), scale: self.scale };
        grad.contiguous()?.apply_op1(mask).map(Some)
    }
}
