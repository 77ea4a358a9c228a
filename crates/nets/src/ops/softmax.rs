//! Softmax over the last dimension: `y = eˣ / Σ eˣ`, and backwards `x̄ = y (ȳ − Σ y ȳ)`.
//!
//! Candle's fused softmax has no backward and cuts the tape silently. Here the backward is composed of
//! Candle's operators on the output, so derivatives of any order are right.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Real, for_real, is_accelerated, sums, values, vectorised};
use crate::Result;

/// Softmax over the last dimension.
///
/// # Shapes
/// `[…, N]` in and out.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    if is_accelerated(x) {
        return Ok(x.contiguous()?.apply_op1(Softmax)?);
    }
    // The largest entry cancels: it is there for the range of the exponential only.
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    Ok(shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?)
}

/// Rows that one thread takes at a time.
const ROWS: usize = 64;

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let row = layout.dims().last().copied().unwrap_or(1);
        let y = for_real!(x, T => values::<T>(x, layout).map(|x| forward(x, row.max(1))))?;
        Ok((y, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        Ok((super::cuda::softmax_forward(x, layout)?, layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        #[cfg(feature = "cuda")]
        if y.device().is_cuda() && !super::tape::second_derivatives_are_taped() {
            return super::cuda::softmax_backward(y, grad).map(Some);
        }
        let weighted = (y * grad)?;
        let mean = weighted.sum_keepdim(D::Minus1)?;
        weighted.sub(&y.broadcast_mul(&mean)?).map(Some)
    }
}

fn forward<T: Real>(x: &[T], row: usize) -> Vec<T> {
    let mut y = vec![T::zero(); x.len()];
    y.par_chunks_mut(row).zip(x.par_chunks(row)).with_min_len(ROWS).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || row_softmax(x, y),
        );
    });
    y
}

#[inline(always)]
fn row_softmax<T: Real>(x: &[T], y: &mut [T]) {
    // `max` that keeps NaN: a row with one must not come out as numbers.
    let largest = x.iter().copied().fold(
        x[0],
        #[inline(always)]
        |a, b| if a >= b { a } else { b },
    );
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - largest).exp());
    let [total] = sums(
        y.len(),
        #[inline(always)]
        |i| [y[i]],
    );
    let factor = T::one() / total;
    y.iter_mut().for_each(|y| *y *= factor);
}
