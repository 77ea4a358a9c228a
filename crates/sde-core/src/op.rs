//! The operators of a linear diffusion, as a closed enum: `c·I`, or `K ⊗ I` with a small k×k matrix K.
//!
//! A state of k groups (k = 1 for ordinary processes, 2 for position and velocity) is `u = (u_1, …, u_k)`, and `K ⊗ I` maps
//! it to `u'_i = Σ_j K_ij u_j`. Operators that live in an orthonormal basis (blurring, learned processes) and dense
//! ones will be further variants; nothing outside `sde-core` matches on the variants.
//!
//! Coefficients are computed once, on the host, in f64; no tensor appears here (see `tensor.rs` for the application).

use nalgebra::DMatrix;

use crate::{Error, Result};

/// A linear operator on states.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// `c·I`.
    Scalar(f64),
    /// `K ⊗ I`, K a small square matrix that acts on the groups of the state.
    Block(DMatrix<f64>),
}

impl Op {
    /// `I`.
    pub const IDENTITY: Self = Self::Scalar(1.0);
    /// `0`.
    pub const ZERO: Self = Self::Scalar(0.0);

    /// `K ⊗ I` with K given by its rows.
    pub fn block<const K: usize>(rows: [[f64; K]; K]) -> Self {
        Self::Block(DMatrix::from_fn(K, K, |i, j| rows[i][j]))
    }

    /// The factor c of `c·I`, `None` for any other operator (even one that equals it).
    pub fn as_scalar(&self) -> Option<f64> {
        match self {
            Self::Scalar(c) => Some(*c),
            Self::Block(_) => None,
        }
    }

    /// The number of groups the operator acts on, 1 if it acts on any.
    pub fn groups(&self) -> usize {
        match self {
            Self::Scalar(_) => 1,
            Self::Block(k) => k.nrows(),
        }
    }

    /// The matrix K on `groups` groups.
    ///
    /// # Errors
    /// When the operator is a block of another size.
    pub fn matrix(&self, groups: usize) -> Result<DMatrix<f64>> {
        match self {
            Self::Scalar(c) => Ok(DMatrix::identity(groups, groups) * *c),
            Self::Block(k) if k.nrows() == groups => Ok(k.clone()),
            Self::Block(k) => Err(Error::Mismatch {
                what: "operator on the groups of a state",
                expected: format!("{groups} groups"),
                found: format!("a {0}×{0} block", k.nrows()),
            }),
        }
    }

    fn zip(
        &self,
        other: &Self,
        scalar: impl Fn(f64, f64) -> f64,
        block: impl Fn(DMatrix<f64>, DMatrix<f64>) -> DMatrix<f64>,
    ) -> Result<Self> {
        if let (Self::Scalar(a), Self::Scalar(b)) = (self, other) {
            return Ok(Self::Scalar(scalar(*a, *b)));
        }
        let groups = self.groups().max(other.groups());
        Ok(Self::Block(block(self.matrix(groups)?, other.matrix(groups)?)))
    }

    fn map(
        &self,
        scalar: impl Fn(f64) -> Option<f64>,
        block: impl Fn(&DMatrix<f64>) -> Option<DMatrix<f64>>,
        what: &'static str,
    ) -> Result<Self> {
        let mapped = match self {
            Self::Scalar(c) => scalar(*c).map(Self::Scalar),
            Self::Block(k) => block(k).map(Self::Block),
        };
        mapped.ok_or_else(|| Error::Mismatch {
            what,
            expected: "an operator for which it exists".into(),
            found: format!("{self:?}"),
        })
    }

    /// The product `self · other`.
    ///
    /// # Errors
    /// When both are blocks of different sizes (so for every binary operation).
    pub fn mul(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| a * b, |a, b| a * b)
    }

    /// The sum.
    pub fn add(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| a + b, |a, b| a + b)
    }

    /// The difference `self − other`.
    pub fn sub(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| a - b, |a, b| a - b)
    }

    /// `c · self`.
    pub fn scale(&self, c: f64) -> Self {
        match self {
            Self::Scalar(a) => Self::Scalar(a * c),
            Self::Block(k) => Self::Block(k * c),
        }
    }

    /// The transpose.
    pub fn transpose(&self) -> Self {
        match self {
            Self::Scalar(c) => Self::Scalar(*c),
            Self::Block(k) => Self::Block(k.transpose()),
        }
    }

    /// The inverse.
    ///
    /// # Errors
    /// When the operator is singular.
    pub fn inverse(&self) -> Result<Self> {
        self.map(
            |c| (c != 0.0 && c.is_finite()).then(|| 1.0 / c),
            |k| k.clone().try_inverse(),
            "inverse of an operator",
        )
    }

    /// The lower triangular L with `L Lᵀ = self`, for a symmetric positive definite operator.
    ///
    /// # Errors
    /// When it is not positive definite.
    pub fn cholesky(&self) -> Result<Self> {
        let factor = |k: &DMatrix<f64>| k.clone().cholesky().map(|c| c.l());
        self.map(|c| (c >= 0.0).then(|| c.sqrt()), factor, "Cholesky factor of an operator")
    }

    /// The symmetric root of a symmetric positive semi-definite operator; eigenvalues that rounding made negative count
    /// as zero when they are below 1e-12 of the largest.
    ///
    /// # Errors
    /// When it has a truly negative eigenvalue.
    pub fn sqrt(&self) -> Result<Self> {
        let root = |k: &DMatrix<f64>| {
            let eigen = k.clone().symmetric_eigen();
            let largest = eigen.eigenvalues.amax();
            if eigen.eigenvalues.min() < -1e-12 * largest {
                return None;
            }
            let roots = eigen.eigenvalues.map(|v| v.max(0.0).sqrt());
            Some(&eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose())
        };
        self.map(|c| (c >= 0.0).then(|| c.sqrt()), root, "symmetric root of an operator")
    }

    /// The exponential.
    pub fn exp(&self) -> Self {
        match self {
            Self::Scalar(c) => Self::Scalar(c.exp()),
            Self::Block(k) => Self::Block(k.exp()),
        }
    }

    /// The largest absolute entry; infinite or NaN if an entry is.
    pub fn max_abs(&self) -> f64 {
        match self {
            Self::Scalar(c) => c.abs(),
            Self::Block(k) => {
                k.iter().fold(0.0, |m, v| if v.is_nan() { f64::NAN } else { f64::max(m, v.abs()) })
            }
        }
    }

    /// Whether every entry is finite.
    pub fn is_finite(&self) -> bool {
        self.max_abs().is_finite()
    }

    /// The log of the absolute determinant on a state of `dim` entries.
    pub fn log_abs_det(&self, dim: usize) -> f64 {
        match self {
            Self::Scalar(c) => dim as f64 * c.abs().ln(),
            Self::Block(k) => (dim / k.nrows()) as f64 * k.determinant().abs().ln(),
        }
    }

    /// Applies the operator to a host state, groups outermost.
    ///
    /// # Errors
    /// When the length is not a multiple of the number of groups.
    pub fn apply_host(&self, u: &[f64]) -> Result<Vec<f64>> {
        match self {
            Self::Scalar(c) => Ok(u.iter().map(|v| c * v).collect()),
            Self::Block(k) => {
                let n = u.len() / k.nrows();
                if n * k.nrows() != u.len() {
                    return Err(Error::Mismatch {
                        what: "length of a state",
                        expected: format!("a multiple of {}", k.nrows()),
                        found: u.len().to_string(),
                    });
                }
                let row = |i: usize, p: usize| (0..k.nrows()).map(|j| k[(i, j)] * u[j * n + p]).sum();
                Ok((0..u.len()).map(|at| row(at / n, at % n)).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a() -> Op {
        Op::block([[2.0, 0.3], [-0.5, 1.0]])
    }

    fn spd() -> Op {
        Op::block([[2.0, 0.7], [0.7, 1.0]])
    }

    fn close(x: &Op, y: &Op) -> bool {
        x.sub(y).is_ok_and(|d| d.max_abs() < 1e-14)
    }

    #[test]
    fn defining_identities() -> Result<()> {
        for op in [a(), Op::Scalar(-3.0)] {
            assert!(close(&op.mul(&op.inverse()?)?, &Op::IDENTITY));
            assert!(close(&op.exp().mul(&op.scale(-1.0).exp())?, &Op::IDENTITY));
        }
        for op in [spd(), Op::Scalar(3.0)] {
            let (l, r) = (op.cholesky()?, op.sqrt()?);
            assert!(close(&l.mul(&l.transpose())?, &op));
            assert!(close(&r.mul(&r)?, &op) && close(&r, &r.transpose()));
        }
        Ok(())
    }

    #[test]
    fn a_scalar_acts_as_a_multiple_of_the_identity_block() -> Result<()> {
        let three = Op::block([[3.0, 0.0], [0.0, 3.0]]);
        assert!(close(&Op::Scalar(3.0).mul(&a())?, &three.mul(&a())?));
        assert!(close(&Op::Scalar(3.0).add(&a())?, &three.add(&a())?));
        assert!((Op::Scalar(3.0).log_abs_det(4) - three.log_abs_det(4)).abs() < 1e-14);
        Ok(())
    }

    #[test]
    fn application_is_the_kronecker_product() -> Result<()> {
        // u = (x, v), two coordinates each.
        let image = a().apply_host(&[1.0, 2.0, 10.0, 20.0])?;
        assert_eq!(image, vec![2.0 + 3.0, 4.0 + 6.0, -0.5 + 10.0, -1.0 + 20.0]);
        assert!(a().apply_host(&[1.0, 2.0, 3.0]).is_err());
        Ok(())
    }

    #[test]
    fn what_does_not_exist_is_an_error() {
        assert!(Op::ZERO.inverse().is_err());
        assert!(Op::block([[1.0, 1.0], [1.0, 1.0]]).inverse().is_err());
        assert!(Op::Scalar(-1.0).sqrt().is_err());
        assert!(Op::block([[1.0, 2.0], [2.0, 1.0]]).cholesky().is_err());
        assert!(Op::block([[1.0, 2.0], [2.0, 1.0]]).sqrt().is_err());
        assert!(a().mul(&Op::block([[1.0; 3]; 3])).is_err());
    }
}
