//! Sub-variance-preserving: the α of VP with the smaller noise `σ = 1 − α²`.
//!
//! Reference: Song et al. 2021, arXiv 2011.13456, Eq. (29) and appendix B.

use super::Vp;
use crate::error::Result;
use crate::{ScalarSde, Span};

/// The sub-VP process with linear β, t in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubVp {
    vp: Vp,
}

impl SubVp {
    /// The published range, β from 0.1 to 20.
    pub const STANDARD: Self = Self { vp: Vp::STANDARD };

    /// Another range.
    ///
    /// # Errors
    /// As [`Vp::new`].
    pub fn new(beta_0: f64, beta_1: f64) -> Result<Self> {
        Ok(Self { vp: Vp::new(beta_0, beta_1)? })
    }
}

impl ScalarSde for SubVp {
    fn span(&self) -> Span {
        ScalarSde::span(&self.vp)
    }
    fn alpha(&self, t: f64) -> f64 {
        self.vp.alpha(t)
    }
    fn sigma(&self, t: f64) -> f64 {
        self.vp.sigma(t).powi(2)
    }
    fn alpha_rate(&self, t: f64) -> f64 {
        self.vp.alpha_rate(t)
    }
    fn sigma_rate(&self, t: f64) -> f64 {
        self.vp.beta(t) * self.alpha(t).powi(2)
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        // ρ = 1/α − α = 2 sinh(−log α)
        self.vp.time_of_integral(2.0 * (0.5 * rho).asinh())
    }
}
