//! Sines and cosines of phases: `y = [sin x, cos x]`, and backwards `x̄ = cos x · ȳ_sin − sin x · ȳ_cos`.
//!
//! In f32 the phase is reduced in f64, `r = x − k π/2` with |r| ≤ π/4, and the Taylor polynomials of degree 9 and 8
//! are within 3e-8: right to an ulp of one for every |x| < 2³⁰, and the same on every platform, which the C library's
//! functions are not. The backward is composed of Candle's operators on the output, so derivatives of any order are
//! right.

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::kernel::{Real, for_real, has_kernels, values, vectorised};
use crate::Result;

/// Values that one thread takes at a time, at the least.
const CHUNK: usize = 1 << 16;

/// The sines of the last dimension, followed by its cosines.
///
/// # Shapes
/// `[…, H]` to `[…, 2 H]`.
pub fn sinusoids(x: &Tensor) -> Result<Tensor> {
    if has_kernels(x) && x.rank() > 0 {
        return Ok(x.contiguous()?.apply_op1(Sinusoids)?);
    }
    Ok(Tensor::cat(&[x.sin()?, x.cos()?], D::Minus1)?)
}

struct Sinusoids;

impl CustomOp1 for Sinusoids {
    fn name(&self) -> &'static str {
        "sinusoids"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        let row = dims.last().copied().unwrap_or(1).max(1);
        dims.iter_mut().rev().take(1).for_each(|n| *n *= 2);
        let y = for_real!(x, T => values::<T>(x, layout).map(|x| forward(x, row)))?;
        Ok((y, dims.into()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let half = x.dim(D::Minus1)?;
        let halves = |t: &Tensor| {
            Ok::<_, candle_core::Error>((t.narrow(D::Minus1, 0, half)?, t.narrow(D::Minus1, half, half)?))
        };
        let ((sin, cos), (for_sin, for_cos)) = (halves(y)?, halves(grad)?);
        (cos * for_sin)?.sub(&(sin * for_cos)?).map(Some)
    }
}

fn forward<T: Real>(x: &[T], row: usize) -> Vec<T> {
    let mut y = vec![T::zero(); 2 * x.len()];
    let rows = y.par_chunks_mut(2 * row).zip(x.par_chunks(row));
    rows.with_min_len(CHUNK / row + 1).for_each(|(y, x)| {
        let (sin, cos) = y.split_at_mut(x.len());
        vectorised(
            #[inline(always)]
            || {
                for ((sin, cos), &x) in sin.iter_mut().zip(cos).zip(x) {
                    (*sin, *cos) = match T::DTYPE {
                        DType::F32 => sin_cos(x.to_f64()),
                        _ => {
                            let (sin, cos) = x.to_f64().sin_cos();
                            (T::from_f64(sin), T::from_f64(cos))
                        }
                    };
                }
            },
        );
    });
    y
}

/// Sine and cosine to the precision of f32.
#[inline(always)]
fn sin_cos<T: Real>(x: f64) -> (T, T) {
    // Adding and subtracting 1.5 · 2⁵² rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let shifted = x * std::f64::consts::FRAC_2_PI + ROUND;
    let r = (x - (shifted - ROUND) * std::f64::consts::FRAC_PI_2) as f32;
    let s = r * r;
    let sin = r + r * s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * (-1.0 / 5040.0 + s * (1.0 / 362_880.0))));
    let cos = 1.0 + s * (-0.5 + s * (1.0 / 24.0 + s * (-1.0 / 720.0 + s * (1.0 / 40_320.0))));
    let quadrant = shifted.to_bits() as u32;
    let (a, b) = if quadrant & 1 == 0 { (sin, cos) } else { (cos, sin) };
    let negative = |odd: u32, v: f32| f32::from_bits(v.to_bits() ^ ((odd & 2) << 30));
    (T::from_f64(negative(quadrant, a).into()), T::from_f64(negative(quadrant.wrapping_add(1), b).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_precision_is_right_to_an_ulp_of_one() {
        for i in -40_000..40_000 {
            let x = (f64::from(i) * 0.173).powi(if i % 2 == 0 { 1 } else { 2 }) as f32;
            let (sin, cos) = sin_cos::<f32>(x.into());
            for (found, exact) in [(sin, f64::from(x).sin()), (cos, f64::from(x).cos())] {
                let error = (f64::from(found) - exact).abs();
                assert!(error < 1.2e-7, "{x}: {found} {exact}");
            }
        }
        assert!(sin_cos::<f32>(f64::NAN).0.is_nan() && sin_cos::<f32>(f64::INFINITY).1.is_nan());
    }
}
