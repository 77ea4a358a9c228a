//! A process with two groups whose operators do not commute with their transposes and that is known in closed form:
//! `F = −½ I − ω J`, `G Gᵀ = I`, J the quarter turn. Then `Ψ = e^{−τ/2} Rot(−ωτ)`, `Σ = (1 − e^{−t}) I`, `R = √(1 − e^{−t}) Rot(−ωt)`.

use sde_core::{LinearSde, Op, Span};

pub struct Rotating {
    pub omega: f64,
}

impl Rotating {
    fn turn(&self, tau: f64, scale: f64) -> Op {
        let (sin, cos) = (self.omega * tau).sin_cos();
        Op::block([[scale * cos, scale * sin], [-scale * sin, scale * cos]])
    }
    fn sigma(t: f64) -> f64 {
        (-(-t).exp_m1()).sqrt()
    }
}

impl LinearSde for Rotating {
    fn span(&self) -> Span {
        Span { end: 6.0, sampling: 1e-3, likelihood: 1e-5 }
    }
    fn drift(&self, _: f64) -> Op {
        Op::block([[-0.5, self.omega], [-self.omega, -0.5]])
    }
    fn diffusion(&self, _: f64) -> Op {
        Op::IDENTITY
    }
    fn transition(&self, to: f64, from: f64) -> Op {
        self.turn(to - from, (0.5 * (from - to)).exp())
    }
    fn signal(&self, t: f64) -> Op {
        self.transition(t, 0.0)
    }
    fn signal_rate(&self, t: f64) -> Op {
        self.drift(t).mul(&self.signal(t)).expect("blocks of one size")
    }
    fn covariance(&self, t: f64) -> Op {
        Op::Scalar(Self::sigma(t).powi(2))
    }
    fn factor(&self, t: f64) -> Op {
        self.turn(t, Self::sigma(t))
    }
    fn factor_rate(&self, t: f64) -> Op {
        let growth = Op::Scalar(0.5 / Self::sigma(t).powi(2));
        let rate = self.drift(t).add(&growth).expect("a scalar fits a block");
        rate.mul(&self.factor(t)).expect("blocks of one size")
    }
    fn prior(&self) -> Op {
        Op::IDENTITY
    }
    fn groups(&self) -> usize {
        2
    }
    fn clock(&self, t: f64) -> f64 {
        t.ln()
    }
    fn time_of_clock(&self, clock: f64) -> f64 {
        clock.exp()
    }
    fn clock_rate(&self, t: f64) -> f64 {
        1.0 / t
    }
}
