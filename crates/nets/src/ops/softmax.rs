//! Softmax over the last dimension: `y = eˣ / Σ eˣ`, and backwards `x̄ = y (ȳ − Σ y ȳ)`.
//!
//! Candle's fused softmax has no backward and cuts the tape silently. Here the fused backward leaves the tape; where
//! second derivatives are taped, it is composed of Candle's operators on the output.

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{
    LANES, Real, for_real, has_kernels, is_accelerated, sums, values, vectorised, with_values,
};
use super::tape::second_derivatives_are_taped;
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
        if y.device().is_cuda() && !second_derivatives_are_taped() {
            return super::cuda::softmax_backward(y, grad).map(Some);
        }
        if has_kernels(y) && !second_derivatives_are_taped() {
            return match y.dtype() {
                DType::F64 => fused_backward::<f64>(y, grad).map(Some),
                _ => fused_backward::<f32>(y, grad).map(Some),
            };
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

fn fused_backward<T: Real>(y: &Tensor, grad: &Tensor) -> candle_core::Result<Tensor> {
    let row = y.dim(D::Minus1)?.max(1);
    let result = with_values([&y.contiguous()?, &grad.contiguous()?], |[y, grad]: [&[T]; 2]| {
        let mut result = vec![T::zero(); y.len()];
        let rows = result.par_chunks_mut(row).zip(y.par_chunks(row).zip(grad.par_chunks(row)));
        rows.with_min_len(ROWS).for_each(|(to, (y, grad))| {
            vectorised(
                #[inline(always)]
                || {
                    let [mean] = sums(
                        row,
                        #[inline(always)]
                        |i| [y[i] * grad[i]],
                    );
                    to.iter_mut()
                        .zip(y.iter().zip(grad))
                        .for_each(|(to, (&y, &grad))| *to = y * (grad - mean));
                },
            );
        });
        Ok(result)
    })?;
    Tensor::from_vec(result, y.dims(), y.device())
}

#[inline(always)]
fn row_softmax<T: Real>(x: &[T], y: &mut [T]) {
    // In lanes, so that it vectorises. A NaN among them is lost here and comes back with its own exponential.
    let mut lanes = [T::from_f64(f64::NEG_INFINITY); LANES];
    for chunk in x.chunks(LANES) {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    let largest = lanes.into_iter().fold(
        lanes[0],
        #[inline(always)]
        |a, b| if b > a { b } else { a },
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
