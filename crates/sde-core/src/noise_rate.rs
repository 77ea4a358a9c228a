//! g(t), the scalar strength of the noise in `dx = f(x, t) dt + g(t) dw`, where f is a network and no law of x is known.
//!
//! Constant; linear between two times; or geometric, `g(t) = g₀ (g₁/g₀)^{(t − t₀)/(t₁ − t₀)}`: little noise near sharp data, more towards
//! the prior.
//!
//! Reference: Zhang, Chen 2021, arXiv 2110.07579, Eq. (8), (9), with g constant in the experiments.

use crate::Result;
use crate::error::in_range;

/// The strength of the noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseRate {
    /// t₀ and t₁.
    ends: [f64; 2],
    /// g₀ and g₁.
    rates: [f64; 2],
    law: Law,
}

/// What is linear in t.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Law {
    Rate,
    Logarithm,
}

impl NoiseRate {
    /// The same at all times.
    ///
    /// # Errors
    /// Unless g lies in [1e-9, 1e9].
    pub fn constant(g: f64) -> Result<Self> {
        Self::linear([0.0, 1.0], [g, g])
    }

    /// g₀ at t₀, g₁ at t₁, linear between.
    ///
    /// # Errors
    /// As [`NoiseRate::geometric`].
    pub fn linear(ends: [f64; 2], rates: [f64; 2]) -> Result<Self> {
        Ok(Self { law: Law::Rate, ..Self::geometric(ends, rates)? })
    }

    /// g₀ at t₀, g₁ at t₁, and the logarithm linear between and beyond.
    ///
    /// # Errors
    /// Unless both rates lie in [1e-9, 1e9] and t₁ lies at least 1e-9 above t₀.
    pub fn geometric(ends: [f64; 2], rates: [f64; 2]) -> Result<Self> {
        for rate in rates {
            in_range("strength g of the noise", rate, 1e-9, 1e9)?;
        }
        in_range("span of the times of g", ends[1] - ends[0], 1e-9, f64::MAX)?;
        Ok(Self { ends, rates, law: Law::Logarithm })
    }

    /// g(t).
    pub fn at(&self, t: f64) -> f64 {
        let ([start, end], [first, last]) = (self.ends, self.rates);
        let share = (t - start) / (end - start);
        match self.law {
            Law::Rate => first + (last - first) * share,
            Law::Logarithm => first * (last / first).powf(share),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_met_at_the_ends_and_geometric_between() -> Result<()> {
        let g = NoiseRate::geometric([0.1, 0.9], [0.02, 0.5])?;
        for (t, expected) in [(0.1, 0.02), (0.5, 0.1), (0.9, 0.5)] {
            assert!((g.at(t) - expected).abs() < 1e-15);
        }
        assert!((NoiseRate::linear([0.1, 0.9], [0.02, 0.5])?.at(0.5) - 0.26).abs() < 1e-15);
        assert_eq!(NoiseRate::constant(0.2)?.at(7.0), 0.2);
        assert!(NoiseRate::constant(0.0).is_err() && NoiseRate::geometric([0.5, 0.5], [1.0, 1.0]).is_err());
        Ok(())
    }
}
