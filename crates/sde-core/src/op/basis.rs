//! Orthonormal bases that operators are diagonal in, as Kronecker products of small ones: `V = V₁ ⊗ V₂ ⊗ …`.
//!
//! The cosine basis of an image of h×w is `C_h ⊗ C_w` with `C_n[i, k] = c_k cos(π (i + ½) k / n)`, `c_0 = √(1/n)`, `c_k = √(2/n)` (DCT-II); a learned basis
//! has one factor, the axes have none. A product of factors of sizes n₁, n₂, … is applied one factor at a time: n (n₁ + n₂ + …) products instead of n².
//!
//! Reference: Ahmed, Natarajan, Rao 1974, "Discrete cosine transform"; Hoogeboom, Salimans 2022, arXiv 2209.05557, for its use here.

use std::f64::consts::PI;

use nalgebra::DMatrix;

use super::entry::largest;
use crate::{Error, Result};

/// How far from orthonormal the columns of a given factor may be.
const TOLERANCE: f64 = 1e-9;

/// An orthonormal basis of n coordinates.
#[derive(Debug, Clone, PartialEq)]
pub struct Basis {
    factors: Vec<DMatrix<f64>>,
    dim: usize,
}

impl Basis {
    /// The axes themselves.
    pub fn axes(dim: usize) -> Self {
        Self { factors: Vec::new(), dim }
    }

    /// The cosine basis of an image, coordinate `i·width + j` for frequency (i, j).
    pub fn dct(height: usize, width: usize) -> Self {
        Self { factors: vec![cosines(height), cosines(width)], dim: height * width }
    }

    /// The columns of `v`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] unless they are orthonormal to 1e-9.
    pub fn new(v: DMatrix<f64>) -> Result<Self> {
        Self::kronecker(vec![v])
    }

    /// `V₁ ⊗ V₂ ⊗ …`; the last factor acts on neighbouring entries.
    ///
    /// # Errors
    /// As [`Basis::new`], for each factor.
    pub fn kronecker(factors: Vec<DMatrix<f64>>) -> Result<Self> {
        for v in &factors {
            let n = v.ncols();
            let defect = if v.is_square() {
                largest((v.transpose() * v - DMatrix::identity(n, n)).iter().copied())
            } else {
                f64::INFINITY
            };
            // A NaN is no orthonormal entry, either.
            if defect.is_nan() || defect > TOLERANCE {
                return Err(Error::Mismatch {
                    what: "basis of an operator",
                    expected: format!("a square matrix of orthonormal columns, to {TOLERANCE:e}"),
                    found: format!("{}×{n}, off by {defect:.2e}", v.nrows()),
                });
            }
        }
        let dim = factors.iter().map(DMatrix::ncols).product();
        Ok(Self { factors, dim })
    }

    /// n, the number of coordinates.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// V₁, V₂, …: none for the axes.
    pub fn factors(&self) -> &[DMatrix<f64>] {
        &self.factors
    }

    /// `Vᵀ x`: the coordinates of n entries.
    pub(super) fn coordinates(&self, x: &[f64]) -> Vec<f64> {
        self.through(x, |v, i, j| v[(i, j)])
    }

    /// `V y`: the entries of n coordinates.
    pub(super) fn entries(&self, y: &[f64]) -> Vec<f64> {
        self.through(y, |v, i, j| v[(j, i)])
    }

    /// V as a matrix.
    pub(super) fn matrix(&self) -> DMatrix<f64> {
        self.factors
            .iter()
            .fold(None, |product: Option<DMatrix<f64>>, v| {
                Some(product.map_or_else(|| v.clone(), |p| p.kronecker(v)))
            })
            .unwrap_or_else(|| DMatrix::identity(self.dim, self.dim))
    }

    /// Applies one matrix for each factor; `entry` reads the factor of input i in output j.
    fn through(&self, x: &[f64], entry: impl Fn(&DMatrix<f64>, usize, usize) -> f64) -> Vec<f64> {
        let mut x = x.to_vec();
        let mut inner = self.dim;
        for v in &self.factors {
            let n = v.ncols();
            inner /= n;
            let mut out = vec![0.0; self.dim];
            for outer in (0..self.dim).step_by(n * inner) {
                for i in 0..n {
                    for j in 0..n {
                        let c = entry(v, i, j);
                        let (from, to) = (outer + i * inner, outer + j * inner);
                        (0..inner).for_each(|k| out[to + k] += c * x[from + k]);
                    }
                }
            }
            x = out;
        }
        x
    }
}

fn cosines(n: usize) -> DMatrix<f64> {
    DMatrix::from_fn(n, n, |i, k| {
        let norm = if k == 0 { 1.0 } else { 2.0 } / n as f64;
        norm.sqrt() * (PI * (i as f64 + 0.5) * k as f64 / n as f64).cos()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_one_at_a_time_are_the_product() -> Result<()> {
        let turn = |angle: f64| {
            let (s, c) = angle.sin_cos();
            DMatrix::from_row_slice(2, 2, &[c, -s, s, c])
        };
        for basis in
            [Basis::dct(3, 5), Basis::kronecker(vec![turn(0.3), cosines(3), turn(-1.1)])?, Basis::axes(7)]
        {
            let n = basis.dim();
            let v = basis.matrix();
            assert!((v.transpose() * &v - DMatrix::identity(n, n)).amax() < 1e-14);
            let x: Vec<f64> = (0..n).map(|i| (1.3 * i as f64).sin()).collect();
            let expected = v.transpose() * DMatrix::from_column_slice(n, 1, &x);
            let y = basis.coordinates(&x);
            assert!(y.iter().zip(expected.iter()).all(|(a, b)| (a - b).abs() < 1e-14));
            assert!(basis.entries(&y).iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-14));
        }
        Ok(())
    }

    #[test]
    fn what_is_not_orthonormal_is_refused() {
        assert!(Basis::new(DMatrix::from_element(2, 2, 1.0)).is_err());
        assert!(Basis::new(DMatrix::identity(2, 3)).is_err());
        for at in 0..4 {
            let mut spoilt = DMatrix::identity(2, 2);
            spoilt[at] = f64::NAN;
            assert!(Basis::new(spoilt).is_err());
        }
    }
}
