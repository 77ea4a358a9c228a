//! The discrete chain of DDPM, `x_n = √(1 − β_n) x_{n−1} + √β_n ε_n`, n = 1 … N, as a process in continuous time.
//!
//! Time is the index: `t = n`. Between indices log α is linear, so the marginals at every index are those of the chain:
//! `α_n = ∏ √(1 − β_k)`, `σ² = 1 − α²`, `α_0 = 1`.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, Eq. (2)–(4). (Their ᾱ is our α².)

use crate::error::{Result, in_range};
use crate::{ScalarSde, Span};

/// A discrete variance-preserving chain of any length and table.
#[derive(Debug, Clone, PartialEq)]
pub struct Discrete {
    /// log α at 0, 1, …, N.
    log_alpha: Vec<f64>,
    indices: Vec<f64>,
}

impl Discrete {
    /// The chain with these β_1 … β_N.
    ///
    /// # Errors
    /// Unless there is one β at least and all lie in (0, 1).
    pub fn new(betas: &[f64]) -> Result<Self> {
        in_range("number of betas", betas.len() as f64, 1.0, f64::from(u32::MAX))?;
        for &beta in betas {
            in_range("beta", beta, f64::MIN_POSITIVE, 1.0 - f64::EPSILON)?;
        }
        Ok(Self::from_table(betas))
    }

    /// The published table: 1000 steps, β linear from 1e-4 to 0.02.
    pub fn ddpm() -> Self {
        let betas: Vec<f64> = (0..1000).map(|n| 1e-4 + (0.02 - 1e-4) * f64::from(n) / 999.0).collect();
        Self::from_table(&betas)
    }

    fn from_table(betas: &[f64]) -> Self {
        let log_alpha = std::iter::once(0.0)
            .chain(betas.iter().scan(0.0, |sum, beta| {
                *sum += 0.5 * (-beta).ln_1p();
                Some(*sum)
            }))
            .collect();
        Self { indices: (0..=betas.len()).map(|n| n as f64).collect(), log_alpha }
    }

    /// N.
    pub fn steps(&self) -> usize {
        self.log_alpha.len() - 1
    }

    /// The cell that holds t, and the slope of log α in it.
    fn cell(&self, t: f64) -> (usize, f64) {
        let cell = (t.max(0.0).ceil() as usize).clamp(1, self.steps()) - 1;
        (cell, self.log_alpha[cell + 1] - self.log_alpha[cell])
    }

    fn log_alpha(&self, t: f64) -> f64 {
        let (cell, slope) = self.cell(t);
        self.log_alpha[cell] + (t - cell as f64) * slope
    }
}

impl ScalarSde for Discrete {
    fn span(&self) -> Span {
        Span { end: self.steps() as f64, sampling: 1.0, likelihood: 1.0 }
    }
    fn alpha(&self, t: f64) -> f64 {
        self.log_alpha(t).exp()
    }
    fn sigma(&self, t: f64) -> f64 {
        (-(2.0 * self.log_alpha(t)).exp_m1()).sqrt()
    }
    fn alpha_rate(&self, t: f64) -> f64 {
        self.cell(t).1 * self.alpha(t)
    }
    fn sigma_rate(&self, t: f64) -> f64 {
        -self.cell(t).1 * self.alpha(t).powi(2) / self.sigma(t)
    }
    fn t_of_rho(&self, rho: f64) -> f64 {
        let target = -0.5 * (rho * rho).ln_1p();
        let cell = self.log_alpha.partition_point(|&v| v > target).clamp(1, self.steps()) - 1;
        let slope = self.log_alpha[cell + 1] - self.log_alpha[cell];
        cell as f64 + (target - self.log_alpha[cell]) / slope
    }
    fn kinks(&self) -> &[f64] {
        &self.indices
    }
}
