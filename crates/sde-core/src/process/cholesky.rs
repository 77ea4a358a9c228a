//! A process seen with the Cholesky factor of its covariance in place of R, `u = S x₀ + L ε_L`, `L Lᵀ = Σ`; and ε of one factor from that of another.
//!
//! Any factor K of Σ defines a noise, `ε_K = −Kᵀ s`, and a network may be trained for any; data, score and the state do not depend on it. So a field
//! of noise of one factor serves a process with another by way of the score: `Converted::new(field, &Cholesky(sde), Prediction::Score)` is a field of `sde`. Directly,
//!
//! `ε_{K'} = K'ᵀ K⁻ᵀ ε_K`.
//!
//! Reference: Dockhorn, Vahdat, Kreis 2021, arXiv 2112.07068, appendix B, for L; Zhang, Tao, Chen 2022, arXiv 2206.05564, section 3, on the choice of K.
//! Differs: the conversion, which the references leave to training.

use super::{Auxiliary, ChainStep, LinearSde, Span};
use crate::{Op, Result};

/// A process with the Cholesky factor for its factor.
///
/// Everything else is the process's. The factor is not constant along the flow of a point mass, which `check_process` finds ([`Defects::rates`](super::Defects)):
/// `factor_rate` is `(F + ½ G Gᵀ Σ⁻¹) L`, not dL/dt, so that a velocity remains the drift of the probability flow. NaN where Σ is not positive definite.
#[derive(Clone, Copy)]
pub struct Cholesky<'a>(pub &'a dyn LinearSde);

/// The factor of ε that makes of the noise of one factor that of another, `K'ᵀ K⁻ᵀ`.
///
/// # Errors
/// When `from` is singular, or the two do not fit each other.
pub fn change_of_factor(from: &Op, to: &Op) -> Result<Op> {
    to.transpose().mul(&from.inverse()?.transpose())
}

fn or_nan(op: Result<Op>) -> Op {
    op.unwrap_or(Op::Scalar(f64::NAN))
}

impl LinearSde for Cholesky<'_> {
    fn factor(&self, t: f64) -> Op {
        or_nan(self.0.covariance(t).cholesky())
    }
    fn factor_rate(&self, t: f64) -> Op {
        let rate = || {
            let half = self.0.diffusion(t).mul(&self.0.covariance(t).inverse()?)?.scale(0.5);
            self.0.drift(t).add(&half)?.mul(&self.factor(t))
        };
        or_nan(rate())
    }
    fn span(&self) -> Span {
        self.0.span()
    }
    fn drift(&self, t: f64) -> Op {
        self.0.drift(t)
    }
    fn diffusion(&self, t: f64) -> Op {
        self.0.diffusion(t)
    }
    fn transition(&self, to: f64, from: f64) -> Op {
        self.0.transition(to, from)
    }
    fn signal(&self, t: f64) -> Op {
        self.0.signal(t)
    }
    fn signal_rate(&self, t: f64) -> Op {
        self.0.signal_rate(t)
    }
    fn covariance(&self, t: f64) -> Op {
        self.0.covariance(t)
    }
    fn prior(&self) -> Op {
        self.0.prior()
    }
    fn groups(&self) -> usize {
        self.0.groups()
    }
    fn auxiliary(&self) -> Option<Auxiliary> {
        self.0.auxiliary()
    }
    fn clock(&self, t: f64) -> f64 {
        self.0.clock(t)
    }
    fn time_of_clock(&self, clock: f64) -> f64 {
        self.0.time_of_clock(clock)
    }
    fn clock_rate(&self, t: f64) -> f64 {
        self.0.clock_rate(t)
    }
    fn knots(&self) -> &[f64] {
        self.0.knots()
    }
    fn chain(&self, k: usize, steps: usize) -> Option<ChainStep> {
        self.0.chain(k, steps)
    }
}
