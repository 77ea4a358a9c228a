//! The operators of a linear diffusion, as a closed enum: `c·I`; `K ⊗ I` with a small k×k matrix K; diagonal, or 2×2 blocks, in an orthonormal basis;
//! dense.
//!
//! A state of k groups (k = 1 for ordinary processes, 2 for position and velocity) is `u = (u_1, …, u_k)`, and `K ⊗ I` maps
//! it to `u'_i = Σ_j K_ij u_j`. An operator in a basis of n coordinates ([`Basis`]) acts on each of the D/n parts of n neighbouring entries: on
//! the channels of an image, if the basis is one of images. A dense one is D×D. Two operators meet in the simplest form that holds both; an operation between
//! them costs what that form costs, and nothing outside `sde-core` matches on the variants.
//!
//! Coefficients are computed once, on the host, in f64; no tensor appears here (see `tensor.rs` for the application).

mod basis;
mod entry;
mod spectral;

use std::borrow::Cow;
use std::sync::Arc;

use nalgebra::DMatrix;

pub use basis::Basis;
pub(crate) use entry::largest;
use entry::{Binary, Entry, Unary};
pub use spectral::Spectral;
pub(crate) use spectral::{partner, same as same_basis};

use crate::{Error, Result};

/// A linear operator on states.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// `c·I`.
    Scalar(f64),
    /// `K ⊗ I`, K a small square matrix that acts on the groups of the state.
    Block(DMatrix<f64>),
    /// `V B Vᵀ`, B diagonal or of 2×2 blocks.
    Spectral(Spectral),
    /// A matrix on the whole state.
    Dense(DMatrix<f64>),
}

/// The form in which several operators meet.
#[derive(Debug, Clone)]
pub(crate) enum Representation {
    /// Numbers alone.
    Scalar,
    /// Matrices on this many groups.
    Groups(usize),
    /// A basis.
    Basis(Arc<Basis>),
    /// Matrices on this many entries.
    Dense(usize),
}

impl Representation {
    /// The simplest form for operators of both.
    fn meet(self, other: Self) -> Result<Self> {
        let refused = |a: String, b: String| {
            Err(Error::Mismatch { what: "operators that do not act on one state", expected: a, found: b })
        };
        match (self, other) {
            (Self::Scalar, representation) | (representation, Self::Scalar) => Ok(representation),
            (Self::Groups(a), Self::Groups(b)) if a == b => Ok(Self::Groups(a)),
            (Self::Basis(a), Self::Basis(b)) if same_basis(&a, &b) => Ok(Self::Basis(a)),
            (Self::Basis(a), Self::Basis(b)) if a.dim() == b.dim() => Ok(Self::Dense(a.dim())),
            (Self::Dense(d), other) | (other, Self::Dense(d)) if d.is_multiple_of(other.dim().max(1)) => {
                match other {
                    Self::Dense(e) if e != d => refused(format!("{d} entries"), format!("{e} entries")),
                    _ => Ok(Self::Dense(d)),
                }
            }
            (a, b) => refused(a.describe(), b.describe()),
        }
    }

    /// What a state's length is a multiple of.
    fn dim(&self) -> usize {
        match self {
            Self::Scalar => 1,
            Self::Groups(n) | Self::Dense(n) => *n,
            Self::Basis(basis) => basis.dim(),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Scalar => "any state".into(),
            Self::Groups(k) => format!("{k} groups"),
            Self::Basis(basis) => format!("parts of {} entries", basis.dim()),
            Self::Dense(d) => format!("{d} entries"),
        }
    }

    /// The form in which all of `ops` meet.
    pub(crate) fn of<'a>(ops: impl IntoIterator<Item = &'a Op>) -> Result<Self> {
        ops.into_iter().try_fold(Self::Scalar, |representation, op| representation.meet(op.representation()))
    }
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

    /// `V diag(values) Vᵀ`.
    ///
    /// # Errors
    /// Unless there is one value for each coordinate.
    pub fn diagonal(basis: &Arc<Basis>, values: Vec<f64>) -> Result<Self> {
        Ok(Self::Spectral(Spectral::diagonal(basis, values)?))
    }

    /// `V B Vᵀ`, B with the 2×2 blocks `pairs`, by rows, of coordinates (0, 1), (2, 3), …; of an odd number of coordinates the last one has the factor `last`.
    ///
    /// # Errors
    /// Unless the blocks cover all coordinates.
    pub fn pairs(basis: &Arc<Basis>, pairs: Vec<[[f64; 2]; 2]>, last: Option<f64>) -> Result<Self> {
        Ok(Self::Spectral(Spectral::pairs(basis, pairs, last)?))
    }

    /// The factor c of `c·I`, `None` for any other operator (even one that equals it).
    pub fn as_scalar(&self) -> Option<f64> {
        match self {
            Self::Scalar(c) => Some(*c),
            _ => None,
        }
    }

    /// The number of groups the operator acts on, 1 if it acts on any or on none.
    pub fn groups(&self) -> usize {
        match self {
            Self::Block(k) => k.nrows(),
            _ => 1,
        }
    }

    fn representation(&self) -> Representation {
        match self {
            Self::Scalar(_) => Representation::Scalar,
            Self::Block(k) => Representation::Groups(k.nrows()),
            Self::Spectral(s) => Representation::Basis(s.basis.clone()),
            Self::Dense(m) => Representation::Dense(m.nrows()),
        }
    }

    /// The same operator in a form that [`Representation::meet`] made of its own.
    pub(crate) fn represented(&self, representation: &Representation) -> Result<Cow<'_, Self>> {
        Ok(match (self, representation) {
            (Self::Scalar(c), Representation::Groups(k)) => {
                Cow::Owned(Self::Block(DMatrix::identity(*k, *k) * *c))
            }
            (Self::Scalar(c), Representation::Basis(basis)) => {
                Cow::Owned(Self::Spectral(Spectral::uniform(basis, *c)))
            }
            (Self::Dense(_), Representation::Dense(_)) => Cow::Borrowed(self),
            (_, Representation::Dense(d)) => Cow::Owned(Self::Dense(self.matrix(*d)?)),
            _ => Cow::Borrowed(self),
        })
    }

    /// The operator on a state of `dim` entries, as a matrix.
    ///
    /// # Errors
    /// When it does not act on so many entries.
    pub fn matrix(&self, dim: usize) -> Result<DMatrix<f64>> {
        let n = self.representation().dim();
        let whole = match self {
            Self::Dense(m) => m.nrows() == dim,
            _ => n > 0 && dim.is_multiple_of(n),
        };
        if !whole {
            return Err(Error::Mismatch {
                what: "entries of a state that an operator acts on",
                expected: self.representation().describe(),
                found: dim.to_string(),
            });
        }
        Ok(match self {
            Self::Scalar(c) => DMatrix::identity(dim, dim) * *c,
            Self::Block(k) => k.kronecker(&DMatrix::identity(dim / n, dim / n)),
            Self::Spectral(s) => s.dense(dim),
            Self::Dense(m) => m.clone(),
        })
    }

    fn binary(&self, rule: Binary, other: &Self) -> Result<Self> {
        if let (Self::Scalar(a), Self::Scalar(b)) = (self, other) {
            return Ok(Self::Scalar(a.binary(rule, b)));
        }
        if let (Binary::Mul, Some(c)) = (rule, self.as_scalar()) {
            return Ok(other.scale(c));
        }
        if let (Binary::Mul, Some(c)) = (rule, other.as_scalar()) {
            return Ok(self.scale(c));
        }
        let representation = self.representation().meet(other.representation())?;
        Ok(
            match (self.represented(&representation)?.as_ref(), other.represented(&representation)?.as_ref())
            {
                (Self::Block(a), Self::Block(b)) => Self::Block(a.binary(rule, b)),
                (Self::Spectral(a), Self::Spectral(b)) => Self::Spectral(a.binary(rule, b)),
                (a, b) => {
                    let dim = representation.dim();
                    Self::Dense(a.matrix(dim)?.binary(rule, &b.matrix(dim)?))
                }
            },
        )
    }

    fn unary(&self, rule: Unary, what: &'static str) -> Result<Self> {
        let found = match self {
            Self::Scalar(c) => c.unary(rule).map(Self::Scalar),
            Self::Block(k) => k.unary(rule).map(Self::Block),
            Self::Spectral(s) => s.unary(rule).map(Self::Spectral),
            Self::Dense(m) => m.unary(rule).map(Self::Dense),
        };
        found.ok_or_else(|| Error::Mismatch {
            what,
            expected: "an operator for which it exists".into(),
            found: self.describe(),
        })
    }

    /// The operator in a few words: small ones by their entries.
    pub fn describe(&self) -> String {
        match self {
            Self::Scalar(_) => format!("{self:?}"),
            Self::Block(k) => {
                let rows: Vec<Vec<f64>> = k.row_iter().map(|row| row.iter().copied().collect()).collect();
                format!("the block {rows:?} over groups")
            }
            Self::Spectral(s) => format!("an operator in a basis of {} coordinates", s.basis.dim()),
            Self::Dense(m) => format!("a {0}×{0} matrix", m.nrows()),
        }
    }

    /// The product `self · other`.
    ///
    /// # Errors
    /// When the two cannot act on one state (so for every binary operation).
    pub fn mul(&self, other: &Self) -> Result<Self> {
        self.binary(Binary::Mul, other)
    }

    /// The sum.
    pub fn add(&self, other: &Self) -> Result<Self> {
        self.binary(Binary::Add, other)
    }

    /// The difference `self − other`.
    pub fn sub(&self, other: &Self) -> Result<Self> {
        self.binary(Binary::Sub, other)
    }

    /// `c · self`.
    pub fn scale(&self, c: f64) -> Self {
        match self {
            Self::Scalar(a) => Self::Scalar(a * c),
            Self::Block(k) => Self::Block(k * c),
            Self::Spectral(s) => Self::Spectral(s.scale(c)),
            Self::Dense(m) => Self::Dense(m * c),
        }
    }

    /// The transpose.
    pub fn transpose(&self) -> Self {
        match self {
            Self::Scalar(c) => Self::Scalar(*c),
            Self::Block(k) => Self::Block(k.transpose()),
            Self::Spectral(s) => Self::Spectral(s.unary(Unary::Transpose).unwrap_or_else(|| s.clone())),
            Self::Dense(m) => Self::Dense(m.transpose()),
        }
    }

    /// The inverse.
    ///
    /// # Errors
    /// When the operator is singular.
    pub fn inverse(&self) -> Result<Self> {
        self.unary(Unary::Inverse, "inverse of an operator")
    }

    /// The L with `L Lᵀ = self` that is lower triangular (in its basis, if it has one), for a symmetric positive definite operator.
    ///
    /// # Errors
    /// When it is not positive definite.
    pub fn cholesky(&self) -> Result<Self> {
        self.unary(Unary::Cholesky, "Cholesky factor of an operator")
    }

    /// The symmetric root of a symmetric positive semi-definite operator; eigenvalues that rounding made negative count
    /// as zero when they are below 1e-12 of the largest entry.
    ///
    /// # Errors
    /// When it has a truly negative eigenvalue.
    pub fn sqrt(&self) -> Result<Self> {
        let slack = if self.as_scalar().is_some() { 0.0 } else { 1e-12 * self.max_abs() };
        self.unary(Unary::Root(slack), "symmetric root of an operator")
    }

    /// The exponential.
    pub fn exp(&self) -> Self {
        self.unary(Unary::Exp, "exponential of an operator").unwrap_or(Self::Scalar(f64::NAN))
    }

    /// `(I + KᵀK)^−½` and `K (I + KᵀK)^−½` of K = self, right where K is large in one direction and small in another.
    ///
    /// # Errors
    /// When an entry is not finite.
    pub(crate) fn cosine_and_sine(&self) -> Result<(Self, Self)> {
        let of = |rule| self.unary(rule, "angles of an operator");
        Ok((of(Unary::Cosine)?, of(Unary::Sine)?))
    }

    /// The largest absolute entry, in the basis if there is one; infinite or NaN if an entry is.
    pub fn max_abs(&self) -> f64 {
        match self {
            Self::Scalar(c) => c.max_abs(),
            Self::Block(k) => k.max_abs(),
            Self::Spectral(s) => s.max_abs(),
            Self::Dense(m) => m.max_abs(),
        }
    }

    /// Whether every entry is finite.
    pub fn is_finite(&self) -> bool {
        self.max_abs().is_finite()
    }

    /// How often the operator is repeated on `dim` entries; NaN if it does not act on so many.
    fn repeats(&self, dim: usize) -> f64 {
        let n = self.representation().dim().max(1);
        let fits = if let Self::Dense(_) = self { dim == n } else { dim.is_multiple_of(n) };
        if fits { (dim / n) as f64 } else { f64::NAN }
    }

    /// The log of the absolute determinant on a state of `dim` entries; NaN if it does not act on so many.
    pub fn log_abs_det(&self, dim: usize) -> f64 {
        let parts = self.repeats(dim);
        parts
            * match self {
                Self::Scalar(c) => c.log_abs_det(),
                Self::Block(k) => k.log_abs_det(),
                Self::Spectral(s) => s.log_abs_det(),
                Self::Dense(m) => m.log_abs_det(),
            }
    }

    /// The trace on a state of `dim` entries; NaN if it does not act on so many.
    pub fn trace(&self, dim: usize) -> f64 {
        let parts = self.repeats(dim);
        parts
            * match self {
                Self::Scalar(c) => *c,
                Self::Block(k) | Self::Dense(k) => k.trace(),
                Self::Spectral(s) => s.coefficients().0.iter().sum(),
            }
    }

    /// Applies the operator to a host state, groups outermost.
    ///
    /// # Errors
    /// When it does not act on so many entries.
    pub fn apply_host(&self, u: &[f64]) -> Result<Vec<f64>> {
        let n = self.representation().dim();
        let fits = match self {
            Self::Dense(_) => u.len() == n,
            _ => n > 0 && u.len().is_multiple_of(n),
        };
        if !fits {
            return Err(Error::Mismatch {
                what: "length of a state",
                expected: self.representation().describe(),
                found: u.len().to_string(),
            });
        }
        Ok(match self {
            Self::Scalar(c) => u.iter().map(|v| c * v).collect(),
            Self::Block(k) | Self::Dense(k) => {
                let inner = u.len() / n;
                let row = |i: usize, p: usize| (0..n).map(|j| k[(i, j)] * u[j * inner + p]).sum();
                (0..u.len()).map(|at| row(at / inner, at % inner)).collect()
            }
            Self::Spectral(s) => u.chunks(n).flat_map(|part| s.apply_part(part)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a() -> Op {
        Op::block([[2.0, 0.3], [-0.5, 1.0]])
    }

    fn close(x: &Op, y: &Op) -> bool {
        // Rounding of a few products of numbers up to 5.
        x.sub(y).is_ok_and(|d| d.max_abs() < 5e-14)
    }

    /// One operator of each form on six entries, symmetric positive definite or not.
    fn every(definite: bool) -> Result<Vec<Op>> {
        let skew = if definite { 0.0 } else { 0.8 };
        let value = |i: usize| 1.0 + 0.3 * i as f64;
        let pair = |i: usize| [[value(i), 0.2 + skew], [0.2 - skew, value(i) + 0.5]];
        let (image, odd) = (Arc::new(Basis::dct(2, 3)), Arc::new(Basis::dct(1, 3)));
        let full =
            DMatrix::from_fn(
                6,
                6,
                |i, j| if i == j { value(i) + 2.0 } else { 0.1 + skew * (i as f64 - j as f64) },
            );
        Ok(vec![
            Op::Scalar(3.0),
            Op::block([[2.0, 0.7 + skew], [0.7 - skew, 1.0]]),
            Op::diagonal(&image, (0..6).map(value).collect())?,
            Op::pairs(&image, (0..3).map(pair).collect(), None)?,
            Op::pairs(&odd, vec![pair(0)], Some(0.4))?,
            Op::Dense(full),
        ])
    }

    #[test]
    fn defining_identities() -> Result<()> {
        for op in every(false)? {
            assert!(close(&op.mul(&op.inverse()?)?, &Op::IDENTITY));
            assert!(close(&op.exp().mul(&op.scale(-1.0).exp())?, &Op::IDENTITY));
        }
        for op in every(true)? {
            let (l, r) = (op.cholesky()?, op.sqrt()?);
            assert!(close(&l.mul(&l.transpose())?, &op));
            assert!(close(&r.mul(&r)?, &op) && close(&r, &r.transpose()));
        }
        Ok(())
    }

    #[test]
    fn every_form_is_its_matrix() -> Result<()> {
        let u: Vec<f64> = (0..6).map(|i| (0.9 * f64::from(i)).cos()).collect();
        let column = nalgebra::DVector::from_row_slice(&u);
        for (i, a) in every(false)?.into_iter().enumerate() {
            let matrix = a.matrix(6)?;
            let image = &matrix * &column;
            assert!(a.apply_host(&u)?.iter().zip(image.iter()).all(|(x, y)| (x - y).abs() < 1e-14));
            assert!((a.trace(6) - matrix.trace()).abs() < 1e-13);
            assert!((a.log_abs_det(6) - matrix.determinant().abs().ln()).abs() < 1e-12);
            assert!((a.transpose().matrix(6)? - matrix.transpose()).amax() < 1e-14);
            for (j, b) in every(true)?.into_iter().enumerate() {
                let Ok(product) = a.mul(&b) else {
                    // Groups and a basis, or bases of other sizes: the state's own size is not known.
                    assert!((1..5).contains(&i) && (1..5).contains(&j) && i != j, "{i} {j}");
                    continue;
                };
                let expected = &matrix * b.matrix(6)?;
                assert!((product.matrix(6)? - expected).amax() < 1e-13, "{i} {j}");
                assert!((a.sub(&b)?.matrix(6)? - (&matrix - b.matrix(6)?)).amax() < 1e-13);
            }
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
        assert!(Op::Dense(DMatrix::identity(3, 3)).mul(&Op::Dense(DMatrix::identity(6, 6))).is_err());
        assert!(Op::diagonal(&Arc::new(Basis::dct(2, 2)), vec![1.0; 3]).is_err());
        assert!(Op::Dense(DMatrix::identity(3, 3)).apply_host(&[1.0; 6]).is_err());
        assert!(Op::Dense(DMatrix::identity(3, 3)).trace(6).is_nan() && a().log_abs_det(5).is_nan());
    }
}
