//! The process of EDM: `α = 1`, `σ = t`, from 0.002 to 80.
//!
//! Reference: Karras, Aittala, Aila, Laine 2022, arXiv 2206.00364, section 4 and Table 1.

use crate::error::{Result, in_range};
use crate::{ScalarSde, Span};

/// The process with σ(t) = t.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edm {
    sigma_min: f64,
    sigma_max: f64,
}

impl Edm {
    /// The published range, σ from 0.002 to 80.
    pub const STANDARD: Self = Self { sigma_min: 0.002, sigma_max: 80.0 };

    /// Another range.
    ///
    /// # Errors
    /// Unless `0 < σ_min < σ_max`, both finite.
    pub fn new(sigma_min: f64, sigma_max: f64) -> Result<Self> {
        in_range("sigma_min", sigma_min, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("sigma_max", sigma_max, sigma_min.next_up(), f64::MAX)?;
        Ok(Self { sigma_min, sigma_max })
    }
}

impl ScalarSde for Edm {
    fn span(&self) -> Span {
        Span { end: self.sigma_max, sampling: self.sigma_min, likelihood: self.sigma_min }
    }
    fn alpha(&self, _: f64) -> f64 {
        1.0
    }
    fn sigma(&self, t: f64) -> f64 {
        t
    }
    fn alpha_rate(&self, _: f64) -> f64 {
        0.0
    }
    fn sigma_rate(&self, _: f64) -> f64 {
        1.0
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        rho
    }
    fn prior_variance(&self) -> f64 {
        self.sigma_max.powi(2)
    }
}
