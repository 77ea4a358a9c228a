//! Operators that are diagonal in an orthonormal basis, or made of 2×2 blocks of neighbouring coordinates: `V blockdiag(B_1, B_2, …) Vᵀ`.

use std::sync::Arc;

use nalgebra::{DMatrix, Matrix2};

use super::basis::Basis;
use super::entry::{Binary, Entry, Unary, largest};
use crate::{Error, Result};

/// An operator in a basis.
#[derive(Debug, Clone)]
pub struct Spectral {
    pub(super) basis: Arc<Basis>,
    blocks: Blocks,
}

/// What acts on the coordinates.
#[derive(Debug, Clone, PartialEq)]
enum Blocks {
    Diagonal(Vec<f64>),
    /// Of coordinates (0, 1), (2, 3), …, and the factor of a last one without partner.
    Pairs(Vec<Matrix2<f64>>, Option<f64>),
}

impl PartialEq for Spectral {
    fn eq(&self, other: &Self) -> bool {
        same(&self.basis, &other.basis) && self.blocks == other.blocks
    }
}

/// Whether two bases are one.
pub(crate) fn same(a: &Arc<Basis>, b: &Arc<Basis>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

impl Spectral {
    pub(super) fn diagonal(basis: &Arc<Basis>, values: Vec<f64>) -> Result<Self> {
        fits(basis, values.len())?;
        Ok(Self { basis: basis.clone(), blocks: Blocks::Diagonal(values) })
    }

    pub(super) fn pairs(basis: &Arc<Basis>, pairs: Vec<[[f64; 2]; 2]>, last: Option<f64>) -> Result<Self> {
        fits(basis, 2 * pairs.len() + usize::from(last.is_some()))?;
        let pairs = pairs.into_iter().map(|[[a, b], [c, d]]| Matrix2::new(a, b, c, d)).collect();
        Ok(Self { basis: basis.clone(), blocks: Blocks::Pairs(pairs, last) })
    }

    /// The basis.
    pub fn basis(&self) -> &Arc<Basis> {
        &self.basis
    }

    /// `V B Vᵀ` with the same factor for every coordinate.
    pub(super) fn uniform(basis: &Arc<Basis>, c: f64) -> Self {
        Self { basis: basis.clone(), blocks: Blocks::Diagonal(vec![c; basis.dim()]) }
    }

    /// The operation of two operators in one basis.
    pub(super) fn binary(&self, rule: Binary, other: &Self) -> Self {
        let blocks = match (&self.blocks, &other.blocks) {
            (Blocks::Diagonal(a), Blocks::Diagonal(b)) => {
                Blocks::Diagonal(a.iter().zip(b).map(|(a, b)| a.binary(rule, b)).collect())
            }
            (a, b) => {
                let ((a, a_last), (b, b_last)) = (a.paired(), b.paired());
                let last = a_last.zip(b_last).map(|(a, b)| a.binary(rule, &b));
                Blocks::Pairs(a.iter().zip(&b).map(|(a, b)| a.binary(rule, b)).collect(), last)
            }
        };
        Self { basis: self.basis.clone(), blocks }
    }

    pub(super) fn unary(&self, rule: Unary) -> Option<Self> {
        let blocks = match &self.blocks {
            Blocks::Diagonal(d) => Blocks::Diagonal(d.iter().map(|v| v.unary(rule)).collect::<Option<_>>()?),
            Blocks::Pairs(pairs, last) => {
                let last = match last {
                    Some(last) => Some(last.unary(rule)?),
                    None => None,
                };
                Blocks::Pairs(pairs.iter().map(|p| p.unary(rule)).collect::<Option<_>>()?, last)
            }
        };
        Some(Self { basis: self.basis.clone(), blocks })
    }

    pub(super) fn scale(&self, c: f64) -> Self {
        let blocks = match &self.blocks {
            Blocks::Diagonal(d) => Blocks::Diagonal(d.iter().map(|v| c * v).collect()),
            Blocks::Pairs(pairs, last) => {
                Blocks::Pairs(pairs.iter().map(|p| p * c).collect(), last.map(|v| c * v))
            }
        };
        Self { basis: self.basis.clone(), blocks }
    }

    pub(super) fn max_abs(&self) -> f64 {
        match &self.blocks {
            Blocks::Diagonal(d) => largest(d.iter().copied()),
            Blocks::Pairs(pairs, last) => largest(pairs.iter().map(Entry::max_abs).chain(*last)),
        }
    }

    /// log |det| of one part of n entries.
    pub(super) fn log_abs_det(&self) -> f64 {
        match &self.blocks {
            Blocks::Diagonal(d) => d.iter().map(Entry::log_abs_det).sum(),
            Blocks::Pairs(pairs, last) => {
                let last = last.map_or(0.0, |v| v.log_abs_det());
                pairs.iter().map(Entry::log_abs_det).sum::<f64>() + last
            }
        }
    }

    /// The factor of each coordinate in itself, and, of pairs, that of its partner in it.
    pub(crate) fn coefficients(&self) -> (Vec<f64>, Option<Vec<f64>>) {
        match &self.blocks {
            Blocks::Diagonal(d) => (d.clone(), None),
            Blocks::Pairs(pairs, last) => {
                let own = pairs.iter().flat_map(|p| [p[(0, 0)], p[(1, 1)]]).chain(*last).collect();
                let cross = pairs.iter().flat_map(|p| [p[(0, 1)], p[(1, 0)]]);
                (own, Some(cross.chain(last.map(|_| 0.0)).collect()))
            }
        }
    }

    /// The operator on n entries.
    pub(super) fn apply_part(&self, x: &[f64]) -> Vec<f64> {
        let y = self.basis.coordinates(x);
        let (own, cross) = self.coefficients();
        let mut z: Vec<f64> = own.iter().zip(&y).map(|(c, y)| c * y).collect();
        for (i, c) in cross.into_iter().flatten().enumerate() {
            // The partner of a last one without is itself, with factor 0.
            z[i] += c * y[partner(i, y.len())];
        }
        self.basis.entries(&z)
    }

    /// The operator on `dim` entries as a matrix.
    pub(super) fn dense(&self, dim: usize) -> DMatrix<f64> {
        let n = self.basis.dim();
        let (own, cross) = self.coefficients();
        let mut middle = DMatrix::from_diagonal(&own.into());
        for (i, c) in cross.into_iter().flatten().enumerate() {
            middle[(i, partner(i, n))] += c;
        }
        let v = self.basis.matrix();
        let part = &v * middle * v.transpose();
        DMatrix::from_fn(dim, dim, |i, j| if i / n == j / n { part[(i % n, j % n)] } else { 0.0 })
    }
}

/// The other coordinate of a pair; of a last one without, itself.
pub(crate) fn partner(i: usize, n: usize) -> usize {
    if (i ^ 1) < n { i ^ 1 } else { i }
}

impl Blocks {
    fn paired(&self) -> (Vec<Matrix2<f64>>, Option<f64>) {
        match self {
            Self::Pairs(pairs, last) => (pairs.clone(), *last),
            Self::Diagonal(d) => {
                let (pairs, last) = d.as_chunks::<2>();
                let pairs = pairs.iter().map(|[a, b]| Matrix2::new(*a, 0.0, 0.0, *b)).collect();
                (pairs, last.first().copied())
            }
        }
    }
}

fn fits(basis: &Basis, found: usize) -> Result<()> {
    if found == basis.dim() {
        return Ok(());
    }
    Err(Error::Mismatch {
        what: "operator in a basis",
        expected: format!("{} coordinates", basis.dim()),
        found: found.to_string(),
    })
}
