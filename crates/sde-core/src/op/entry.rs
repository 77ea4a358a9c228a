//! What an operator is made of: numbers, 2×2 blocks and matrices, with one algebra.

use std::ops::{Add, Mul, Sub};

use nalgebra::{DMatrix, Matrix2};

/// An operation on two entries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Binary {
    Mul,
    Add,
    Sub,
}

/// An operation on one entry, which need not exist.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unary {
    Transpose,
    Inverse,
    Cholesky,
    /// The symmetric root; eigenvalues that are negative by less than this count as zero.
    Root(f64),
    Exp,
    /// `(I + KᵀK)^−½`: the cosines of the angles whose tangents are the singular values.
    Cosine,
    /// `K (I + KᵀK)^−½`: their sines.
    Sine,
}

/// A number or a matrix.
pub(super) trait Entry: Sized {
    fn binary(&self, rule: Binary, other: &Self) -> Self;
    fn unary(&self, rule: Unary) -> Option<Self>;
    /// The largest absolute entry; NaN if there is one.
    fn max_abs(&self) -> f64;
    /// log |det|.
    fn log_abs_det(&self) -> f64;
}

fn combined<'a, T>(a: &'a T, rule: Binary, b: &'a T) -> T
where
    &'a T: Mul<Output = T> + Add<Output = T> + Sub<Output = T>,
{
    match rule {
        Binary::Mul => a * b,
        Binary::Add => a + b,
        Binary::Sub => a - b,
    }
}

impl Entry for f64 {
    fn binary(&self, rule: Binary, other: &Self) -> Self {
        combined(self, rule, other)
    }
    fn unary(&self, rule: Unary) -> Option<Self> {
        match rule {
            Unary::Transpose => Some(*self),
            Unary::Inverse => (*self != 0.0 && self.is_finite()).then(|| 1.0 / self),
            Unary::Cholesky => (*self >= 0.0).then(|| self.sqrt()),
            Unary::Root(slack) => (*self >= -slack).then(|| self.max(0.0).sqrt()),
            Unary::Exp => Some(self.exp()),
            Unary::Cosine => self.is_finite().then(|| self.hypot(1.0).recip()),
            Unary::Sine => self.is_finite().then(|| self / self.hypot(1.0)),
        }
    }
    fn max_abs(&self) -> f64 {
        self.abs()
    }
    fn log_abs_det(&self) -> f64 {
        self.abs().ln()
    }
}

macro_rules! matrix_entry {
    ($t:ty, $from_diagonal:path) => {
        impl Entry for $t {
            fn binary(&self, rule: Binary, other: &Self) -> Self {
                combined(self, rule, other)
            }
            fn unary(&self, rule: Unary) -> Option<Self> {
                match rule {
                    Unary::Transpose => Some(self.transpose()),
                    Unary::Inverse => self.clone().try_inverse(),
                    Unary::Cholesky => self.clone().cholesky().map(|c| c.l()),
                    Unary::Root(slack) => {
                        let eigen = self.clone().symmetric_eigen();
                        if eigen.eigenvalues.iter().any(|v| v.is_nan() || *v < -slack) {
                            return None;
                        }
                        let roots = eigen.eigenvalues.map(|v| v.max(0.0).sqrt());
                        Some(&eigen.eigenvectors * $from_diagonal(&roots) * eigen.eigenvectors.transpose())
                    }
                    Unary::Exp => Some(self.exp()),
                    // By singular values: those of KᵀK are squares, of which the small ones drown in the rounding of the large.
                    Unary::Cosine | Unary::Sine if self.iter().all(|v| v.is_finite()) => {
                        let svd = self.clone().svd(true, true);
                        let (tangents, v_t) = (svd.singular_values, svd.v_t?);
                        Some(match rule {
                            Unary::Sine => svd.u? * $from_diagonal(&tangents.map(|k| k / k.hypot(1.0))) * v_t,
                            _ => {
                                v_t.transpose()
                                    * $from_diagonal(&tangents.map(|k| k.hypot(1.0).recip()))
                                    * v_t
                            }
                        })
                    }
                    Unary::Cosine | Unary::Sine => None,
                }
            }
            fn max_abs(&self) -> f64 {
                largest(self.iter().copied())
            }
            fn log_abs_det(&self) -> f64 {
                // A determinant of many entries leaves the range of numbers; its factors do not.
                self.clone().lu().u().diagonal().iter().map(|v| v.abs().ln()).sum()
            }
        }
    };
}
matrix_entry!(Matrix2<f64>, Matrix2::from_diagonal);
matrix_entry!(DMatrix<f64>, DMatrix::from_diagonal);

/// The largest absolute value; NaN if there is one.
pub(crate) fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |m: f64, v| if v.is_nan() || m.is_nan() { f64::NAN } else { m.max(v.abs()) })
}
