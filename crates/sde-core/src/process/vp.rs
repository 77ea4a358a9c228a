//! Variance preserving, linear β: `log α_t = −¼ t² (β₁ − β₀) − ½ t β₀`, `σ² = 1 − α²`, `dx = −½ β_t x dt + √β_t dw`.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239; Song et al. 2021, arXiv 2011.13456, Eq. (32)–(33).

use super::ChainStep;
use crate::error::{Result, in_range};
use crate::{ScalarSde, Span};

/// The variance-preserving process with `β_t = β₀ + t (β₁ − β₀)`, t in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vp {
    beta_0: f64,
    beta_1: f64,
}

impl Vp {
    /// The published range, β from 0.1 to 20.
    pub const STANDARD: Self = Self { beta_0: 0.1, beta_1: 20.0 };

    /// Another range.
    ///
    /// # Errors
    /// Unless `0 ≤ β₀ ≤ β₁ ≤ 1000` and `β₁ > 0`.
    pub fn new(beta_0: f64, beta_1: f64) -> Result<Self> {
        in_range("beta_0", beta_0, 0.0, 1000.0)?;
        in_range("beta_1", beta_1, beta_0.max(f64::MIN_POSITIVE), 1000.0)?;
        Ok(Self { beta_0, beta_1 })
    }

    /// `b(t) = ∫₀ᵗ β = −2 log α_t`.
    pub fn integral(&self, t: f64) -> f64 {
        t * (self.beta_0 + 0.5 * t * (self.beta_1 - self.beta_0))
    }

    /// `b(to) − b(from)`, in the form without cancellation.
    pub(super) fn integral_between(&self, to: f64, from: f64) -> f64 {
        (to - from) * (self.beta_0 + 0.5 * (to + from) * (self.beta_1 - self.beta_0))
    }

    /// β_t.
    pub fn beta(&self, t: f64) -> f64 {
        self.beta_0 + t * (self.beta_1 - self.beta_0)
    }

    /// The time at which ∫₀ᵗ β equals `integral`, in the form without cancellation.
    pub(super) fn time_of_integral(&self, integral: f64) -> f64 {
        let root = (self.beta_0.powi(2) + 2.0 * (self.beta_1 - self.beta_0) * integral).sqrt();
        if integral == 0.0 { 0.0 } else { 2.0 * integral / (self.beta_0 + root) }
    }
}

impl ScalarSde for Vp {
    fn span(&self) -> Span {
        Span { end: 1.0, sampling: 1e-3, likelihood: 1e-5 }
    }
    fn alpha(&self, t: f64) -> f64 {
        (-0.5 * self.integral(t)).exp()
    }
    fn sigma(&self, t: f64) -> f64 {
        (-(-self.integral(t)).exp_m1()).sqrt()
    }
    fn alpha_rate(&self, t: f64) -> f64 {
        -0.5 * self.beta(t) * self.alpha(t)
    }
    fn sigma_rate(&self, t: f64) -> f64 {
        0.5 * self.beta(t) * self.alpha(t).powi(2) / self.sigma(t)
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        self.time_of_integral((rho * rho).ln_1p())
    }
    fn chain(&self, k: usize, steps: usize) -> Option<ChainStep> {
        // β_k from β₀/N to β₁/N in even steps; the ancestral step has the forward variance.
        let (first, last) = (self.beta_0 / steps as f64, self.beta_1 / steps as f64);
        let beta = first + (last - first) * (k as f64 / (steps as f64 - 1.0).max(1.0));
        (k < steps && beta < 1.0).then(|| ChainStep {
            factor: (1.0 - beta).sqrt(),
            variance: beta,
            ancestral: beta,
        })
    }
}
