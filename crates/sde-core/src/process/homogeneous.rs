//! Time-homogeneous linear laws run by the clock of VP: `du = ḃ F u dt + √ḃ G dw`, `b(t) = β₀ t + ½ (β₁ − β₀) t²`.
//!
//! F and G do not depend on time, so every operator is a function of b alone: `Ψ(t, s) = exp(F (b_t − b_s))`, Σ from a point, R with `dR/db = (F
//! + ½ G Gᵀ Σ⁻¹) R`. The stationary law is N(0, I/m), for which `F = −m (½ Q + ω)` with `Q = G Gᵀ` and ω antisymmetric, and then, whether Q and
//! ω commute or not, `Σ = (I − ΨΨᵀ)/m`.
//!
//! Reference: Du, Zhang, Yang, Du 2023, "A Flexible Diffusion Model", arXiv 2206.10365, Theorem 3.5 and Eq. (19), (31).
//! Differs: the theorem's `Var = I − exp(−b Q)` holds only where Qω = ωQ; its schedule is printed with one letter for b and for its rate ḃ; the law
//! that it calls N(0, m I) is N(0, I/m).

use super::Vp;
use crate::{LinearSde, Op, Result, ScalarSde, Span};

/// A linear law that does not depend on time, from a point at b = 0.
pub trait Homogeneous: Send + Sync {
    /// F.
    fn drift(&self) -> Op;
    /// G Gᵀ = Q.
    fn diffusion(&self) -> Op;
    /// m: the stationary law is N(0, I/m).
    fn precision(&self) -> f64;
    /// exp(F b), b ≥ 0 or not.
    fn transition(&self, b: f64) -> Op;
    /// Σ after b.
    fn covariance(&self, b: f64) -> Op;
    /// R after b.
    fn factor(&self, b: f64) -> Op;
    /// dR/db.
    fn factor_rate(&self, b: f64) -> Op;
    /// The number of groups of the state.
    fn groups(&self) -> usize {
        1
    }
    /// Makes ready what takes an integration up to `longest`, the largest b that will be asked for.
    ///
    /// # Errors
    /// When it cannot.
    fn prepare(&mut self, longest: f64) -> Result<()> {
        let _ = longest;
        Ok(())
    }
}

/// A homogeneous law as a process on t in [0, 1], with b the integrated β of a [`Vp`].
#[derive(Debug, Clone, PartialEq)]
pub struct Clocked<L> {
    law: L,
    vp: Vp,
}

impl<L: Homogeneous> Clocked<L> {
    /// `law` run by the clock of `vp`.
    ///
    /// # Errors
    /// When the law cannot be made ready ([`Homogeneous::prepare`]).
    pub fn new(mut law: L, vp: Vp) -> Result<Self> {
        law.prepare(vp.integral(ScalarSde::span(&vp).end))?;
        Ok(Self { law, vp })
    }

    /// The law.
    pub fn law(&self) -> &L {
        &self.law
    }

    /// The VP process whose clock it has, which is the process with Q = I, ω = 0, m = 1.
    pub fn vp(&self) -> &Vp {
        &self.vp
    }
}

impl<L: Homogeneous> LinearSde for Clocked<L> {
    fn span(&self) -> Span {
        ScalarSde::span(&self.vp)
    }
    fn drift(&self, t: f64) -> Op {
        self.law.drift().scale(self.vp.beta(t))
    }
    fn diffusion(&self, t: f64) -> Op {
        self.law.diffusion().scale(self.vp.beta(t))
    }
    fn transition(&self, to: f64, from: f64) -> Op {
        self.law.transition(self.vp.integral_between(to, from))
    }
    fn signal(&self, t: f64) -> Op {
        self.law.transition(self.vp.integral(t))
    }
    fn signal_rate(&self, t: f64) -> Op {
        // F commutes with exp(F b); the sizes are those of one law.
        self.drift(t).mul(&self.signal(t)).unwrap_or(NOWHERE)
    }
    fn covariance(&self, t: f64) -> Op {
        self.law.covariance(self.vp.integral(t))
    }
    fn factor(&self, t: f64) -> Op {
        self.law.factor(self.vp.integral(t))
    }
    fn factor_rate(&self, t: f64) -> Op {
        self.law.factor_rate(self.vp.integral(t)).scale(self.vp.beta(t))
    }
    fn prior(&self) -> Op {
        Op::Scalar(1.0 / self.law.precision())
    }
    fn groups(&self) -> usize {
        self.law.groups()
    }
    fn clock(&self, t: f64) -> f64 {
        LinearSde::clock(&self.vp, t)
    }
    fn time_of_clock(&self, clock: f64) -> f64 {
        LinearSde::time_of_clock(&self.vp, clock)
    }
    fn clock_rate(&self, t: f64) -> f64 {
        LinearSde::clock_rate(&self.vp, t)
    }
}

/// What stands for an operator that does not exist, such as the transition over a time that is not a number.
pub(super) const NOWHERE: Op = Op::Scalar(f64::NAN);
