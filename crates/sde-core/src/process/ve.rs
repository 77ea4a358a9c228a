//! Variance exploding: `α = 1`, `σ_t = σ_min (σ_max/σ_min)ᵗ`.
//!
//! Reference: Song, Ermon 2019, arXiv 1907.05600; Song et al. 2021, arXiv 2011.13456, Eq. (30)–(31).
//! Differs: the kernel's deviation is σ_t, not √(σ_t² − σ_min²), as in the authors' code; so Σ_0 = σ_min².

use super::ChainStep;
use crate::error::{Result, in_range};
use crate::{ScalarSde, Span};

/// The variance-exploding process with geometric σ, t in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ve {
    sigma_min: f64,
    sigma_max: f64,
}

impl Ve {
    /// The published range for CIFAR-10, σ from 0.01 to 50.
    pub const STANDARD: Self = Self { sigma_min: 0.01, sigma_max: 50.0 };

    /// Another range.
    ///
    /// # Errors
    /// Unless `0 < σ_min < σ_max`, both finite.
    pub fn new(sigma_min: f64, sigma_max: f64) -> Result<Self> {
        in_range("sigma_min", sigma_min, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("sigma_max", sigma_max, sigma_min.next_up(), f64::MAX)?;
        Ok(Self { sigma_min, sigma_max })
    }

    fn log_ratio(&self) -> f64 {
        (self.sigma_max / self.sigma_min).ln()
    }
}

impl ScalarSde for Ve {
    fn span(&self) -> Span {
        Span { end: 1.0, sampling: 1e-5, likelihood: 1e-5 }
    }
    fn alpha(&self, _: f64) -> f64 {
        1.0
    }
    fn sigma(&self, t: f64) -> f64 {
        self.sigma_min * (self.sigma_max / self.sigma_min).powf(t)
    }
    fn alpha_rate(&self, _: f64) -> f64 {
        0.0
    }
    fn sigma_rate(&self, t: f64) -> f64 {
        self.log_ratio() * self.sigma(t)
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        (rho / self.sigma_min).ln() / self.log_ratio()
    }
    fn chain(&self, k: usize, steps: usize) -> Option<ChainStep> {
        // σ_k from σ_min to σ_max in even ratios, σ_{−1} = 0; the ancestral step has the posterior's variance.
        let level = |k: usize| self.sigma(k as f64 / (steps as f64 - 1.0).max(1.0)).powi(2);
        let (now, before) = (level(k), k.checked_sub(1).map_or(0.0, level));
        (k < steps).then(|| ChainStep {
            factor: 1.0,
            variance: now - before,
            ancestral: before * (now - before) / now,
        })
    }
    fn prior_variance(&self) -> f64 {
        self.sigma_max.powi(2)
    }
}
