//! The flexible diffusions whose noise and rotation commute: `du = −m (½ Q + ω) u db + √Q dw`, `Qω = ωQ`, in closed form.
//!
//! In an orthonormal basis V, `½ Q + ω = V blockdiag([[a/2, λ], [−λ, a/2]]) Vᵀ`: each pair of coordinates decays at the rate of its a and turns at
//! that of its λ. Written as complex numbers `x + iy ≙ [[x, −y], [y, x]]`, with `e = exp(−m a b)`,
//!
//! `F ≙ −m a/2 + i m λ`, `Ψ ≙ √e · exp(i m λ b)`, `Σ ≙ (1 − e)/m`, `R ≙ √Σ · exp(i m λ b)`.
//!
//! FP-Noise has λ = 0 and any a, FP-Drift a = 1 and any λ; a coordinate without rotation needs no partner, so an odd D is no exception.
//!
//! Reference: Du, Zhang, Yang, Du 2023, arXiv 2206.10365, Eq. (19), (31) and appendix A.4.
//! Differs: noise and rotation together; R, whose noise is constant along the flow of a point, not the root of Σ; any m.

use std::sync::Arc;

use nalgebra::{DMatrix, Schur};

use super::homogeneous::{Homogeneous, NOWHERE};
use crate::error::{Result, in_range};
use crate::op::{Basis, largest};
use crate::{Error, Op};

/// How far from commuting a given pair may be, relative to its size.
const TOLERANCE: f64 = 1e-9;

/// A law of independent coordinates and turning pairs of them; a process by [`super::Clocked`].
#[derive(Debug, Clone, PartialEq)]
pub struct Commuting {
    basis: Arc<Basis>,
    /// a, of each coordinate.
    eigenvalues: Vec<f64>,
    /// λ, of coordinates (0, 1), (2, 3), …; none at all if all are 0.
    rotations: Vec<f64>,
    precision: f64,
}

impl Commuting {
    /// The law with `eigenvalues` a_1 … a_n of Q along the columns of `basis`, and `rotations` λ_1 … of the pairs of columns (1, 2), (3, 4), …; none, if
    /// empty. m is `precision`: the stationary law is N(0, I/m).
    ///
    /// An image of several channels has a basis of one channel, which acts on all of them.
    ///
    /// # Errors
    /// [`Error::Range`] unless m and all a lie in [1e-12, 1e12]; [`Error::Mismatch`] unless there is one a for each of the basis's coordinates, one λ for each pair, all of
    /// them finite, and the two a of a turning pair are equal.
    pub fn new(
        basis: Arc<Basis>,
        eigenvalues: Vec<f64>,
        rotations: Vec<f64>,
        precision: f64,
    ) -> Result<Self> {
        in_range("precision m of the stationary law", precision, 1e-12, 1e12)?;
        let n = basis.dim();
        if eigenvalues.len() != n || n == 0 {
            return Err(mismatch(
                "eigenvalues of the diffusion matrix",
                format!("{n}, one for each coordinate of the basis"),
                eigenvalues.len().to_string(),
            ));
        }
        for &a in &eigenvalues {
            in_range("eigenvalue of the diffusion matrix", a, 1e-12, 1e12)?;
        }
        if !(rotations.is_empty() || rotations.len() == n / 2) || rotations.iter().any(|l| !l.is_finite()) {
            return Err(mismatch(
                "rotations of pairs of coordinates",
                format!("none, or {} finite numbers", n / 2),
                format!("{} numbers, of which all must be finite", rotations.len()),
            ));
        }
        let uneven = |(i, l): (usize, &f64)| {
            let (a, b) = (eigenvalues[2 * i], eigenvalues[2 * i + 1]);
            *l != 0.0 && (a - b).abs() > TOLERANCE * (a + b)
        };
        if let Some((i, l)) = rotations.iter().enumerate().find(|&at| uneven(at)) {
            return Err(mismatch(
                "a turning pair of coordinates",
                "two equal eigenvalues of the diffusion matrix (a general pair of matrices is a LinearPair)"
                    .into(),
                format!("{} and {} with rotation {l}", eigenvalues[2 * i], eigenvalues[2 * i + 1]),
            ));
        }
        let rotations = if rotations.iter().all(|l| *l == 0.0) { Vec::new() } else { rotations };
        Ok(Self { basis, eigenvalues, rotations, precision })
    }

    /// FP-Noise: `Q = V diag(a) Vᵀ`, ω = 0; every coordinate along V is a VP process of its own clock a·b.
    ///
    /// # Errors
    /// As [`Commuting::new`].
    pub fn fp_noise(basis: Arc<Basis>, eigenvalues: Vec<f64>, precision: f64) -> Result<Self> {
        Self::new(basis, eigenvalues, Vec::new(), precision)
    }

    /// FP-Drift: Q = I and any antisymmetric ω, a matrix on the whole state or on one of its equal parts.
    ///
    /// # Errors
    /// As [`Commuting::of`].
    pub fn fp_drift(omega: &DMatrix<f64>, precision: f64) -> Result<Self> {
        let mut law = Self::of(&DMatrix::identity(omega.nrows(), omega.ncols()), omega, precision)?;
        // The Schur form has rounded them.
        law.eigenvalues.fill(1.0);
        Ok(law)
    }

    /// The law of two matrices that commute: Q symmetric positive definite, ω antisymmetric.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when they are not so to 1e-9 of their size, or do not commute; and as [`Commuting::new`].
    pub fn of(q: &DMatrix<f64>, omega: &DMatrix<f64>, precision: f64) -> Result<Self> {
        let n = q.nrows();
        if [q.shape(), omega.shape()].iter().any(|&shape| shape != (n, n)) || n == 0 {
            let found = format!("{:?} and {:?}", q.shape(), omega.shape());
            return Err(mismatch("Q and ω", "square matrices of one size".into(), found));
        }
        let size = q.amax().max(omega.amax());
        let defects = [
            ("Q − Qᵀ", largest((q - q.transpose()).iter().copied()) / size),
            ("ω + ωᵀ", largest((omega + omega.transpose()).iter().copied()) / size),
            ("Qω − ωQ", largest((q * omega - omega * q).iter().copied()) / (size * size)),
        ];
        for (what, defect) in defects {
            if defect.is_nan() || defect > TOLERANCE {
                return Err(mismatch(
                    what,
                    "zero: Q symmetric, ω antisymmetric, and both commuting (any other pair is a LinearPair)"
                        .into(),
                    format!("entries of {defect:.2e} of the matrices' size"),
                ));
            }
        }
        // ½ Q + ω is normal, so its real Schur form is block diagonal.
        let Some(schur) = Schur::try_new(q * 0.5 + omega, f64::EPSILON, 0) else {
            return Err(mismatch("Q and ω", "matrices with a Schur form".into(), "none found".into()));
        };
        let (vectors, form) = schur.unpack();
        let (mut pairs, mut single) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < n {
            let turning = at + 1 < n && form[(at + 1, at)].abs() > f64::EPSILON * size;
            if turning {
                pairs.push(at)
            } else {
                single.push(at)
            }
            at += if turning { 2 } else { 1 };
        }
        let columns: Vec<usize> =
            pairs.iter().flat_map(|&i| [i, i + 1]).chain(single.iter().copied()).collect();
        let of_pair = |&i: &usize| [form[(i, i)] + form[(i + 1, i + 1)]; 2];
        let eigenvalues = pairs.iter().flat_map(of_pair).chain(single.iter().map(|&i| 2.0 * form[(i, i)]));
        let turning = pairs.iter().map(|&i| 0.5 * (form[(i, i + 1)] - form[(i + 1, i)]));
        let rotations = turning.chain(std::iter::repeat(0.0)).take(n / 2).collect();
        let basis = Arc::new(Basis::new(vectors.select_columns(&columns))?);
        Self::new(basis, eigenvalues.collect(), rotations, precision)
    }

    /// The same law with the eigenvalues scaled to `‖Λ‖ = √n`, so that laws of one total speed are compared.
    pub fn normalised(mut self) -> Self {
        let norm = self.eigenvalues.iter().map(|a| a * a).sum::<f64>().sqrt();
        let scale = (self.eigenvalues.len() as f64).sqrt() / norm;
        self.eigenvalues.iter_mut().for_each(|a| *a *= scale);
        self
    }

    /// V.
    pub fn basis(&self) -> &Arc<Basis> {
        &self.basis
    }

    /// a, the eigenvalues of Q along V.
    pub fn eigenvalues(&self) -> &[f64] {
        &self.eigenvalues
    }

    /// λ of the pairs; empty where nothing turns.
    pub fn rotations(&self) -> &[f64] {
        &self.rotations
    }

    /// `exp(−m ω b)`: how far the law has turned after b.
    pub fn rotation(&self, b: f64) -> Op {
        self.op(|_, l| complex(1.0, self.precision * l * b))
    }

    /// The operator whose blocks are the complex numbers `of(a, λ)`; a real number of equal a needs no basis.
    fn op(&self, of: impl Fn(f64, f64) -> (f64, f64)) -> Op {
        let a = &self.eigenvalues;
        if self.rotations.is_empty() {
            let values: Vec<f64> = a.iter().map(|&a| of(a, 0.0).0).collect();
            let uniform = a.iter().all(|other| *other == a[0]);
            return if uniform { Op::Scalar(values[0]) } else { sized(Op::diagonal(&self.basis, values)) };
        }
        let blocks = self.rotations.iter().enumerate().map(|(i, &l)| {
            let (own, other) = (of(a[2 * i], l), of(a[2 * i + 1], l));
            [[own.0, -own.1], [other.1, other.0]]
        });
        let last = (a.len() % 2 == 1).then(|| of(a[a.len() - 1], 0.0).0);
        sized(Op::pairs(&self.basis, blocks.collect(), last))
    }

    /// A real function of the eigenvalues alone.
    fn of_eigenvalues(&self, of: impl Fn(f64) -> f64) -> Op {
        let a = &self.eigenvalues;
        if a.iter().all(|other| *other == a[0]) {
            return Op::Scalar(of(a[0]));
        }
        sized(Op::diagonal(&self.basis, a.iter().map(|&a| of(a)).collect()))
    }

    /// √Σ and its rate in b.
    fn deviation(&self, a: f64, b: f64) -> (f64, f64) {
        let (m, decay) = (self.precision, (-self.precision * a * b).exp_m1());
        let deviation = (-decay / m).sqrt();
        (deviation, 0.5 * a * (1.0 + decay) / deviation)
    }
}

impl Homogeneous for Commuting {
    fn drift(&self) -> Op {
        self.op(|a, l| (-0.5 * self.precision * a, self.precision * l))
    }
    fn diffusion(&self) -> Op {
        self.of_eigenvalues(|a| a)
    }
    fn precision(&self) -> f64 {
        self.precision
    }
    fn transition(&self, b: f64) -> Op {
        self.op(|a, l| complex((-0.5 * self.precision * a * b).exp(), self.precision * l * b))
    }
    fn covariance(&self, b: f64) -> Op {
        self.of_eigenvalues(|a| self.deviation(a, b).0.powi(2))
    }
    fn factor(&self, b: f64) -> Op {
        self.op(|a, l| complex(self.deviation(a, b).0, self.precision * l * b))
    }
    fn factor_rate(&self, b: f64) -> Op {
        self.op(|a, l| {
            let ((size, rate), turn) = (self.deviation(a, b), self.precision * l);
            let (cos, sin) = complex(1.0, turn * b);
            (rate * cos - size * turn * sin, rate * sin + size * turn * cos)
        })
    }
}

/// `size · exp(i angle)`.
fn complex(size: f64, angle: f64) -> (f64, f64) {
    let (sin, cos) = angle.sin_cos();
    (size * cos, size * sin)
}

/// The sizes were checked when the law was made.
fn sized(op: Result<Op>) -> Op {
    op.unwrap_or(NOWHERE)
}

fn mismatch(what: &'static str, expected: String, found: String) -> Error {
    Error::Mismatch { what, expected, found }
}
