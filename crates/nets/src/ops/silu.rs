//! SiLU: `y = x σ(x)`, `y' = σ(x) (1 + x (1 − σ(x)))`.
//!
//! The fused backward leaves the tape; where second derivatives are taped, it is composed of Candle's
//! operators.
//!
//! Reference: Elfwing, Uchibe, Doya 2017, arXiv 1702.03118, equation 5.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Real, for_real, is_accelerated, values, vectorised, with_values};
use super::tape::second_derivatives_are_taped;
use crate::Result;

/// Values that one thread takes at a time.
const CHUNK: usize = 1 << 16;

/// SiLU of every entry.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if !is_accelerated(x) {
        return Ok(x.silu()?);
    }
    Ok(x.contiguous()?.apply_op1(Silu)?)
}

/// dy/dx on the tape.
pub(super) fn slope(x: &Tensor) -> candle_core::Result<Tensor> {
    let sigmoid = (x.neg()?.exp()? + 1.0)?.recip()?;
    let bracket = ((x * sigmoid.affine(-1.0, 1.0)?)? + 1.0)?;
    sigmoid.mul(&bracket)
}

struct Silu;

impl CustomOp1 for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = for_real!(x, T => values::<T>(x, layout).map(forward))?;
        Ok((y, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        Ok((super::cuda::silu_forward(x, layout)?, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        if second_derivatives_are_taped() {
            return slope(x)?.mul(grad).map(Some);
        }
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return super::cuda::silu_backward(x, grad).map(Some);
        }
        match x.dtype() {
            DType::F64 => fused_backward::<f64>(x, grad).map(Some),
            _ => fused_backward::<f32>(x, grad).map(Some),
        }
    }
}

fn forward<T: Real>(x: &[T]) -> Vec<T> {
    let mut y = vec![T::zero(); x.len()];
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * x.sigmoid()),
        );
    });
    y
}

fn fused_backward<T: Real>(x: &Tensor, grad: &Tensor) -> candle_core::Result<Tensor> {
    let result = with_values([x, &grad.contiguous()?], |[x, grad]: [&[T]; 2]| {
        let mut result = vec![T::zero(); x.len()];
        let arguments = x.par_chunks(CHUNK).zip(grad.par_chunks(CHUNK));
        result.par_chunks_mut(CHUNK).zip(arguments).for_each(|(result, (x, grad))| {
            vectorised(
                #[inline(always)]
                || {
                    result.iter_mut().zip(x.iter().zip(grad)).for_each(|(v, (&x, &grad))| {
                        let s = x.sigmoid();
                        *v = grad * s * (T::one() + x * (T::one() - s));
                    });
                },
            );
        });
        Ok(result)
    })?;
    Tensor::from_vec(result, x.dims(), x.device())
}
