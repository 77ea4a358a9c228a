//! Variance preserving with the cosine schedule: `α = cos φ`, `σ = sin φ`, `φ = (t + s)/(1 + s)·π/2`, s = 0.008.
//!
//! Reference: Nichol, Dhariwal 2021, arXiv 2102.09672, Eq. (17); the end T = 0.9946 of Lu et al. 2022, arXiv 2206.00927.
//! Differs: α is not divided by α(0), so Σ_0 = 1.6e-4; at t = 1 the signal is gone, so the span stops short of it.

use crate::{ScalarSde, Span};

const OFFSET: f64 = 0.008;

/// The cosine schedule, t in [0, 0.9946].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cosine;

const RATE: f64 = std::f64::consts::FRAC_PI_2 / (1.0 + OFFSET);

impl ScalarSde for Cosine {
    fn span(&self) -> Span {
        Span { end: 0.9946, sampling: 1e-3, likelihood: 1e-5 }
    }
    fn alpha(&self, t: f64) -> f64 {
        ((t + OFFSET) * RATE).cos()
    }
    fn sigma(&self, t: f64) -> f64 {
        ((t + OFFSET) * RATE).sin()
    }
    fn alpha_rate(&self, t: f64) -> f64 {
        -RATE * self.sigma(t)
    }
    fn sigma_rate(&self, t: f64) -> f64 {
        RATE * self.alpha(t)
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        rho.atan() / RATE - OFFSET
    }
}
