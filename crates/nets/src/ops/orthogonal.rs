//! Orthogonal matrices from free parameters, differentiable: with H antisymmetric,
//!
//! ```text
//! exponential   P = exp(H)                            H̄ = L(Hᵀ, P̄), L the Fréchet derivative of exp
//! Cayley        P = (I − H/2)⁻¹ (I + H/2) = 2X − I    H̄ = Xᵀ P̄ Xᵀ, X = (I − H/2)⁻¹ = (P + I)/2
//! ```
//!
//! and `ū_ij = H̄_ij − H̄_ji` for the entries u above the diagonal. The exponential reaches every rotation, Cayley's map
//! those without the eigenvalue −1.
//!
//! On the CPU both are computed in f64, whatever the type of u, and made orthogonal to rounding by one step towards
//! the polar factor. Elsewhere, and where second derivatives are taped, they are composed of Candle's operators.
//!
//! Reference: Al-Mohy, Higham 2009 (see `square.rs`) for L; Golub, Van Loan 2013, section 2.1.4, for the derivative of
//! an inverse; Ben-Israel, Cohen 1966, for the iteration.

use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Shape, Tensor};

use super::kernel::{has_kernels, values, with_values};
use super::square::Square;
use super::tape::second_derivatives_are_taped;
use crate::{Error, Result};

type CandleResult<T> = candle_core::Result<T>;

/// `exp(H)`, H antisymmetric with the entries `upper`, by rows, above its diagonal.
///
/// # Shapes
/// `[m]` to `[n, n]`, or `[B, m]` to `[B, n, n]`, `m = n (n − 1)/2`.
///
/// # Errors
/// [`Error::Shape`] where m is none of these numbers.
pub fn orthogonal_exponential(upper: &Tensor, n: usize) -> Result<Tensor> {
    Map::Exponential.of(upper, n)
}

/// Cayley's map of the same H.
///
/// # Shapes
/// Those of [`orthogonal_exponential`].
///
/// # Errors
/// [`Error::Shape`] where m is none of these numbers.
pub fn orthogonal_cayley(upper: &Tensor, n: usize) -> Result<Tensor> {
    Map::Cayley.of(upper, n)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Map {
    Exponential,
    Cayley,
}

struct Op {
    map: Map,
    n: usize,
}

impl Map {
    fn of(self, upper: &Tensor, n: usize) -> Result<Tensor> {
        let m = n * n.saturating_sub(1) / 2;
        if n == 0 || !matches!(upper.rank(), 1 | 2) || upper.dim(D::Minus1)? != m {
            return Err(Error::Shape {
                what: "antisymmetric matrix",
                expected: format!("{m} entries above the diagonal of {n} rows"),
                found: format!("{:?}", upper.dims()),
            });
        }
        if m == 0 {
            let dims: Vec<usize> = upper.dims().iter().rev().skip(1).rev().copied().chain([1, 1]).collect();
            return Ok(Tensor::ones(dims, upper.dtype(), upper.device())?);
        }
        if !has_kernels(upper) || second_derivatives_are_taped() {
            return self.composed(upper, n);
        }
        let exact = upper.to_dtype(DType::F64)?.contiguous()?.apply_op1(Op { map: self, n })?;
        Ok(exact.to_dtype(upper.dtype())?)
    }

    fn value(self, n: usize, upper: &[f64]) -> Square {
        let h = Square::antisymmetric(n, upper);
        let map = match self {
            Self::Exponential => h.exp(),
            Self::Cayley => inverse_shifted(h).scale(2.0).plus_identity(-1.0),
        };
        map.polished()
    }

    /// The gradient of the entries above the diagonal from that of P.
    fn pulled_back(self, n: usize, upper: &[f64], p: &[f64], gradient: &[f64]) -> Vec<f64> {
        let gradient = Square { n, values: gradient.to_vec() };
        let of_h = match self {
            Self::Exponential => Square::antisymmetric(n, upper).scale(-1.0).exp_derivative(gradient),
            Self::Cayley => {
                let x = Square { n, values: p.to_vec() }.plus_identity(1.0).scale(0.5).transpose();
                x.times(&gradient).times(&x)
            }
        };
        of_h.antisymmetric_part()
    }

    /// The same of Candle's operators, each on the tape.
    fn composed(self, upper: &Tensor, n: usize) -> Result<Tensor> {
        let (h, identity) = (antisymmetric(upper, n)?, Tensor::eye(n, upper.dtype(), upper.device())?);
        // A bound of the spectral norm; the number of steps below is a function of the values on the host.
        let norm = h.detach().sqr()?.sum((D::Minus2, D::Minus1))?.sqrt()?;
        let norm = norm.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let norm = norm.into_iter().fold(0.0, f64::max);
        match self {
            Self::Exponential => {
                let squarings = (2.0 * norm).max(1.0).log2().ceil() as i32;
                let scaled = (&h * 0.5f64.powi(squarings))?;
                let mut sum = identity.broadcast_as(h.shape())?.contiguous()?;
                for k in (1..=14).rev() {
                    sum = (scaled.matmul(&sum)? * (1.0 / f64::from(k)))?.broadcast_add(&identity)?;
                }
                for _ in 0..squarings {
                    sum = sum.matmul(&sum)?;
                }
                Ok(sum)
            }
            Self::Cayley => {
                let m = (h * -0.5)?.broadcast_add(&identity)?;
                let half = 0.5 * norm;
                let mut x = (m.transpose(D::Minus2, D::Minus1)?.contiguous()? * first_factor(half))?;
                for _ in 0..iterations(half) {
                    let correction = (m.matmul(&x)? * -1.0)?.broadcast_add(&(&identity * 2.0)?)?;
                    x = x.matmul(&correction)?;
                }
                Ok((x * 2.0)?.broadcast_sub(&identity)?)
            }
        }
    }
}

/// The antisymmetric matrices with the entries `upper`, by rows, above their diagonals, gathered on the tape.
///
/// # Shapes
/// `[m]` to `[n, n]`, or `[B, m]` to `[B, n, n]`, `m = n (n − 1)/2`.
pub fn antisymmetric(upper: &Tensor, n: usize) -> Result<Tensor> {
    let (batch, m) = (upper.elem_count() / upper.dim(D::Minus1)?, upper.dim(D::Minus1)?);
    let mut places = vec![m as u32; n * n];
    let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| i * n + j));
    pairs.enumerate().for_each(|(at, place)| places[place] = at as u32);
    let places = Tensor::from_vec(places, n * n, upper.device())?;
    let rows = upper.reshape((batch, m))?;
    // One more entry, zero, for all places on and below the diagonal.
    let rows = Tensor::cat(&[&rows, &Tensor::zeros((batch, 1), upper.dtype(), upper.device())?], 1)?;
    let u = rows.index_select(&places, 1)?.reshape((batch, n, n))?;
    let h = (&u - u.transpose(1, 2)?)?;
    Ok(if upper.rank() == 1 { h.squeeze(0)? } else { h })
}

/// `(I − H/2)⁻¹` by `X ← X (2I − M X)`: all singular values of `M = I − H/2` lie in `[1, √(1 + ‖H/2‖²)]`.
fn inverse_shifted(h: Square) -> Square {
    let half = 0.5 * h.norm().min(h.times(&h).norm().sqrt());
    let m = h.scale(-0.5).plus_identity(1.0);
    let mut x = m.transpose().scale(first_factor(half));
    for _ in 0..iterations(half) {
        x = x.times(&m.times(&x).scale(-1.0).plus_identity(2.0));
    }
    x
}

/// The factor c of `X₀ = c Mᵀ` that has the least `‖I − X₀ M‖`.
fn first_factor(half: f64) -> f64 {
    2.0 / (2.0 + half * half)
}

/// Steps until `‖I − X M‖`, at first `h²/(2 + h²)` and squared by each step, is below rounding, and one more.
fn iterations(half: f64) -> usize {
    let mut defect = half * half / (2.0 + half * half);
    let mut steps = 1;
    while defect > 1e-17 && steps < 60 {
        defect *= defect;
        steps += 1;
    }
    steps
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "orthogonal matrix"
    }

    fn cpu_fwd(&self, upper: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (n, m) = (self.n, self.n * (self.n - 1) / 2);
        let upper = values::<f64>(upper, layout)?;
        let matrices = upper.chunks(m).flat_map(|upper| self.map.value(n, upper).values).collect();
        let dims: Vec<usize> = layout.dims().iter().rev().skip(1).rev().copied().chain([n, n]).collect();
        Ok((CpuStorage::F64(matrices), Shape::from(dims)))
    }

    fn bwd(&self, upper: &Tensor, p: &Tensor, gradient: &Tensor) -> CandleResult<Option<Tensor>> {
        let (n, m) = (self.n, self.n * (self.n - 1) / 2);
        let (p, gradient) = (p.contiguous()?, gradient.contiguous()?);
        let for_upper = with_values([upper, &p, &gradient], |[upper, p, gradient]: [&[f64]; 3]| {
            let matrices = upper.chunks(m).zip(p.chunks(n * n).zip(gradient.chunks(n * n)));
            Ok(matrices.flat_map(|(u, (p, g))| self.map.pulled_back(n, u, p, g)).collect::<Vec<f64>>())
        })?;
        Tensor::from_vec(for_upper, upper.dims(), upper.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    fn upper(n: usize, size: f64) -> Vec<f64> {
        (0..n * (n - 1) / 2).map(|k| size * (1.7 * k as f64 + 0.4).sin()).collect()
    }

    #[test]
    fn the_fused_and_the_composed_maps_agree_with_their_gradients() -> Result<()> {
        for map in [Map::Exponential, Map::Cayley] {
            for n in [2, 3, 7] {
                let batch: Vec<f64> = [upper(n, 0.3), upper(n, -1.9)].concat();
                let var = Var::from_vec(batch, (2, n * (n - 1) / 2), &Device::Cpu)?;
                let weights: Vec<f64> = (0..2 * n * n).map(|k| (k as f64).cos()).collect();
                let weights = Tensor::from_vec(weights, (2, n, n), &Device::Cpu)?;
                let of = |p: &Tensor| -> Result<(f64, Vec<f64>)> {
                    let loss = (p * &weights)?.sum_all()?;
                    let gradient = loss.backward()?.get(&var).map(|g| g.flatten_all()?.to_vec1());
                    Ok((loss.to_scalar()?, gradient.transpose()?.unwrap_or_default()))
                };
                let (fused, composed) = (map.of(&var, n)?, map.composed(&var, n)?);
                let ((a, from_a), (b, from_b)) = (of(&fused)?, of(&composed)?);
                assert!((a - b).abs() < 1e-12 * n as f64, "{map:?} {n}: {a} {b}");
                assert_eq!(from_a.len(), from_b.len());
                for (a, b) in from_a.iter().zip(&from_b) {
                    assert!((a - b).abs() < 1e-11, "{map:?} {n}: {a} {b}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn matrices_are_orthogonal_to_rounding_however_far_they_turn() {
        for map in [Map::Exponential, Map::Cayley] {
            for (n, size) in [(3, 0.3), (3, 40.0), (60, 3.0), (130, 0.05)] {
                let defect = map.value(n, &upper(n, size)).gram().plus_identity(-1.0);
                let defect = defect.values.iter().fold(0.0, |m, v| f64::max(m, v.abs()));
                assert!(defect < 1e-14, "{map:?} {n} {size}: {defect:e}");
            }
        }
    }

    #[test]
    fn sizes_that_are_no_triangle_are_errors() -> Result<()> {
        let five = Tensor::zeros(5, DType::F32, &Device::Cpu)?;
        assert!(orthogonal_exponential(&five, 3).is_err());
        assert_eq!(orthogonal_cayley(&five.narrow(0, 0, 0)?, 1)?.to_vec2::<f32>()?, [[1.0]]);
        Ok(())
    }
}
