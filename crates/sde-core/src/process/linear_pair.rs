//! Any linear pair (F, G Gᵀ) with the stationary law N(0, I/m): `du = F u db + G dw`, checked, and degenerate noise allowed.
//!
//! N(0, I/m) is stationary just when `F + Fᵀ + m G Gᵀ = 0`, so that `Q = G Gᵀ` and `ω = (Fᵀ − F)/(2m)` are read off, `F = −m (½ Q + ω)`. Every start forgets
//! itself just when the noise reaches every direction, that is when (F, G) is controllable: the smallest space that holds the range of G and is mapped into
//! itself by F is all of it. Σ = (I − ΨΨᵀ)/m is computed without that difference; R by [`FlowFactor`].
//!
//! On the whole state (D×D) or on its groups (k×k, position and velocity). For two matrices that commute [`super::Commuting`] has closed forms.
//!
//! Reference: Du, Zhang, Yang, Du 2023, arXiv 2206.10365, Theorem 3.3, Corollary 3.4 and Corollary A.1 (every such drift has this form).
//! Differs: the corollary asks for a positive definite coupling of positions and velocities, the law for an invertible one; its variance
//! `I − exp(−b Q)` is that of a commuting pair, and zero where the noise is degenerate.

use nalgebra::{DMatrix, Matrix2};

use super::gramian::propagate;
use super::homogeneous::{Homogeneous, NOWHERE};
use crate::error::{Result, in_range};
use crate::factor::{FlowFactor, FlowParts};
use crate::{Error, Op};

/// How far a given pair may be from what it must be, relative to its size.
const TOLERANCE: f64 = 1e-9;
/// Where R of a law with degenerate noise starts, in units of 1/‖F‖: before, its columns turn like log b, without end.
const DEGENERATE_START: f64 = 1e-12;

/// A law of any two matrices; a process by [`super::Clocked`].
#[derive(Debug, Clone)]
pub struct LinearPair {
    drift: DMatrix<f64>,
    diffusion: DMatrix<f64>,
    precision: f64,
    /// The matrices act on groups of the state, not on its entries.
    on_groups: bool,
    rotation: Option<FlowFactor>,
}

impl LinearPair {
    /// The law of `drift` F and `diffusion` G Gᵀ, D×D, on states of D entries, with the stationary law N(0, I/m), m the `precision`.
    ///
    /// # Errors
    /// [`Error::Mismatch`], which says what is wrong, when the matrices do not fit, `G Gᵀ` is not symmetric positive semi-definite, `F + Fᵀ + m G Gᵀ` is not zero, or the noise does
    /// not reach every direction.
    pub fn on_state(drift: DMatrix<f64>, diffusion: DMatrix<f64>, precision: f64) -> Result<Self> {
        check(&drift, &diffusion, precision)?;
        Ok(Self { drift, diffusion, precision, on_groups: false, rotation: None })
    }

    /// The law of `drift` F and `diffusion` G Gᵀ, k×k, on the k groups of a state.
    ///
    /// # Errors
    /// As [`LinearPair::on_state`].
    pub fn on_groups(drift: DMatrix<f64>, diffusion: DMatrix<f64>, precision: f64) -> Result<Self> {
        check(&drift, &diffusion, precision)?;
        Ok(Self { drift, diffusion, precision, on_groups: true, rotation: None })
    }

    /// The law of Q and ω: `F = −m (½ Q + ω)`, on states of D entries.
    ///
    /// # Errors
    /// As [`LinearPair::on_state`].
    pub fn of(q: DMatrix<f64>, omega: &DMatrix<f64>, precision: f64) -> Result<Self> {
        if omega.shape() != q.shape() {
            let found = format!("{:?} and {:?}", q.shape(), omega.shape());
            return Err(mismatch("Q and ω", "square matrices of one size".into(), found));
        }
        Self::on_state((&q * 0.5 + omega) * -precision, q, precision)
    }

    /// ω, antisymmetric: `F = −m (½ G Gᵀ + ω)`.
    pub fn omega(&self) -> DMatrix<f64> {
        (self.drift.transpose() - &self.drift) * (0.5 / self.precision)
    }

    /// `(Ψ, Σ)` after b.
    pub(super) fn moments(&self, b: f64) -> (DMatrix<f64>, DMatrix<f64>) {
        if self.drift.nrows() != 2 {
            return propagate(&self.drift, &self.diffusion, b);
        }
        // Without memory from the heap: there may be one such law for each pair of coordinates.
        let two = |m: &DMatrix<f64>| Matrix2::from_fn(|i, j| m[(i, j)]);
        let (psi, sigma) = propagate(&two(&self.drift), &two(&self.diffusion), b);
        let any = |m: Matrix2<f64>| DMatrix::from_fn(2, 2, |i, j| m[(i, j)]);
        (any(psi), any(sigma))
    }

    fn parts(&self) -> impl Fn(f64) -> FlowParts + '_ {
        |b| FlowParts::new(self.drift.clone(), self.diffusion.clone(), &self.moments(b).1)
    }

    /// exp(F b).
    pub(super) fn transition_matrix(&self, b: f64) -> DMatrix<f64> {
        if b < 0.0 { (&self.drift * b).exp() } else { self.moments(b).0 }
    }

    /// R, zero without noise.
    pub(super) fn factor_matrix(&self, b: f64) -> Option<DMatrix<f64>> {
        let at = |rotation: &FlowFactor| {
            if b == 0.0 { &self.drift * 0.0 } else { rotation.at(&self.parts(), b) }
        };
        self.rotation.as_ref().map(at)
    }

    /// dR/db.
    pub(super) fn factor_rate_matrix(&self, b: f64) -> Option<DMatrix<f64>> {
        let parts = self.parts();
        self.rotation.as_ref().map(|rotation| parts(b).factor_rate(&rotation.rotation(&parts, b)))
    }

    pub(super) fn drift_matrix(&self) -> &DMatrix<f64> {
        &self.drift
    }

    pub(super) fn diffusion_matrix(&self) -> &DMatrix<f64> {
        &self.diffusion
    }

    fn op(&self, matrix: DMatrix<f64>) -> Op {
        if self.on_groups { Op::Block(matrix) } else { Op::Dense(matrix) }
    }
}

impl Homogeneous for LinearPair {
    fn drift(&self) -> Op {
        self.op(self.drift.clone())
    }
    fn diffusion(&self) -> Op {
        self.op(self.diffusion.clone())
    }
    fn precision(&self) -> f64 {
        self.precision
    }
    fn transition(&self, b: f64) -> Op {
        self.op(self.transition_matrix(b))
    }
    fn covariance(&self, b: f64) -> Op {
        self.op(self.moments(b).1)
    }
    fn factor(&self, b: f64) -> Op {
        self.factor_matrix(b).map_or(NOWHERE, |r| self.op(r))
    }
    fn factor_rate(&self, b: f64) -> Op {
        self.factor_rate_matrix(b).map_or(NOWHERE, |r| self.op(r))
    }
    fn groups(&self) -> usize {
        if self.on_groups { self.drift.nrows() } else { 1 }
    }
    fn prepare(&mut self, longest: f64) -> Result<()> {
        let full_noise = reached(None, &self.diffusion).ncols() == self.drift.nrows();
        let first = if full_noise { 0.0 } else { DEGENERATE_START / self.drift.amax() };
        let rotation = FlowFactor::new(&self.parts(), (first, longest), &[])?;
        self.rotation = Some(rotation);
        Ok(())
    }
}

fn check(drift: &DMatrix<f64>, diffusion: &DMatrix<f64>, precision: f64) -> Result<()> {
    in_range("precision m of the stationary law", precision, 1e-12, 1e12)?;
    let n = drift.nrows();
    if n == 0 || drift.shape() != (n, n) || diffusion.shape() != (n, n) {
        let found = format!("{:?} and {:?}", drift.shape(), diffusion.shape());
        return Err(mismatch("drift F and diffusion G Gᵀ", "square matrices of one size".into(), found));
    }
    let size = drift.amax().max(precision * diffusion.amax());
    let asymmetry = (diffusion - diffusion.transpose()).amax();
    let spectrum = diffusion.clone().symmetric_eigenvalues();
    if !(asymmetry <= TOLERANCE * size && spectrum.min() >= -TOLERANCE * spectrum.amax() && size.is_finite())
    {
        return Err(mismatch(
            "diffusion G Gᵀ",
            "a symmetric positive semi-definite matrix".into(),
            format!("asymmetry {asymmetry:.2e}, smallest eigenvalue {:.2e}", spectrum.min()),
        ));
    }
    let defect = drift + drift.transpose() + diffusion * precision;
    let (at, worst) = defect
        .iter()
        .enumerate()
        .fold((0, 0.0), |worst, (i, d)| if d.abs() > worst.1 || d.is_nan() { (i, d.abs()) } else { worst });
    if worst.is_nan() || worst > TOLERANCE * size {
        let fitting = -2.0 * drift.trace() / diffusion.trace();
        return Err(mismatch(
            "linear pair",
            format!("F + Fᵀ + m G Gᵀ = 0 with m = {precision}, so that N(0, I/m) is stationary"),
            format!(
                "{:.3e} at ({}, {}); the m of the traces is {fitting:.6}; a pair with another stationary covariance P is one in the coordinates P^(−1/2) u",
                defect[at],
                at % n + 1,
                at / n + 1
            ),
        ));
    }
    let space = reached(Some(drift), diffusion);
    if space.ncols() < n {
        return Err(mismatch(
            "linear pair",
            "noise that reaches every direction, (F, G) controllable".into(),
            format!(
                "{} of {n} directions reached; the data along {} is turned and never forgotten",
                space.ncols(),
                forgotten(&space)
            ),
        ));
    }
    Ok(())
}

/// An orthonormal basis of the smallest space that holds the range of `diffusion` and that `drift` maps into itself; of the range, if there is no drift.
fn reached(drift: Option<&DMatrix<f64>>, diffusion: &DMatrix<f64>) -> DMatrix<f64> {
    let n = diffusion.nrows();
    let mut found: Vec<nalgebra::DVector<f64>> = Vec::new();
    let eigen = diffusion.clone().symmetric_eigen();
    let threshold = 1e-12 * eigen.eigenvalues.amax();
    let mut fresh: Vec<_> = (0..n)
        .filter(|&i| eigen.eigenvalues[i] > threshold)
        .map(|i| eigen.eigenvectors.column(i).into_owned())
        .collect();
    while let Some(vector) = fresh.pop() {
        let length = vector.norm();
        let mut rest = vector;
        // Twice, for the sake of rounding.
        for _ in 0..2 {
            for other in &found {
                rest.axpy(-other.dot(&rest), other, 1.0);
            }
        }
        if rest.norm() > TOLERANCE * length && found.len() < n {
            let unit = rest.normalize();
            fresh.extend(drift.map(|drift| drift * &unit));
            found.push(unit);
        }
    }
    if found.is_empty() { DMatrix::zeros(n, 0) } else { DMatrix::from_columns(&found) }
}

/// A direction that is orthogonal to the columns of `space`, in words.
fn forgotten(space: &DMatrix<f64>) -> String {
    let n = space.nrows();
    let rest = DMatrix::identity(n, n) - space * space.transpose();
    let column = rest.column_iter().max_by(|a, b| a.norm().total_cmp(&b.norm()));
    let Some(column) = column else { return "no direction".into() };
    let unit = column.normalize();
    let entries: Vec<String> = unit.iter().take(8).map(|v| format!("{v:.3}")).collect();
    format!("({}{})", entries.join(", "), if n > 8 { ", …" } else { "" })
}

fn mismatch(what: &'static str, expected: String, found: String) -> Error {
    Error::Mismatch { what, expected, found }
}
