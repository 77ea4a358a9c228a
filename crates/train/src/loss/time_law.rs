//! At which times a model is trained: the law of t, drawn for each sample at its own address.
//!
//! The likelihood weighting times a uniform t has a large variance, because `g²/σ²` does. Drawing t with density
//! `p(t) ∝ g²/σ²` and dividing the loss by it keeps the expectation. Since `g² = α² d(ρ²)/dt`,
//!
//! `g²/σ² = 2 d(log ρ)/dt`,
//!
//! so this t is uniform in the process's clock, log ρ, and needs no table.
//!
//! Reference: Song, Durkan, Murray, Ermon 2021, arXiv 2101.09258, section 5.1; Karras et al. 2022, arXiv 2206.00364,
//! Table 1 (log-normal); Ho, Jain, Abbeel 2020, arXiv 2006.11239, Algorithm 1 (indices); Song, Ermon 2019, arXiv
//! 1907.05600, section 4.2 (levels: on VE, whose log σ is linear in t, a geometric sequence of σ).
//! Differs: the density is inverted in closed form for every process.

use sde_core::LinearSde;
use sde_core::noise::Draws;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The law of the time of a training example.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TimeLaw {
    /// Uniform between two times.
    Uniform {
        /// The smallest time.
        from: f64,
        /// The largest time.
        to: f64,
    },
    /// Density proportional to g²/σ² between two times; the loss is divided by the density relative to the uniform
    /// one, so its expectation is that of [`TimeLaw::Uniform`].
    ImportanceSampled {
        /// The smallest time.
        from: f64,
        /// The largest time.
        to: f64,
    },
    /// Uniform in the process's clock (log ρ of a scalar process) between two times: for a scalar process what the likelihood weighting
    /// amounts to on the noise error, for others the same on all of it.
    EvenClock {
        /// The smallest time.
        from: f64,
        /// The largest time.
        to: f64,
    },
    /// log ρ is normal (ρ is EDM's σ); not truncated to the process's span.
    LogNormal {
        /// The mean of log ρ; EDM has −1.2.
        mean: f64,
        /// The standard deviation of log ρ; EDM has 1.2.
        std: f64,
    },
    /// Uniform among t = 1, 2, …, n, the indices of a discrete process.
    DiscreteIndices {
        /// The number of indices.
        n: u32,
    },
    /// Uniform among n evenly spaced times, both ends included: the discrete levels of SMLD on VE.
    Levels {
        /// The smallest time; 0 for σ_min.
        from: f64,
        /// The largest time; 1 for σ_max.
        to: f64,
        /// How many; SMLD of Song et al. 2021 has 1000.
        n: u32,
    },
}

/// A time, and what its loss is multiplied by to make up for the law it was drawn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrawnTime {
    /// t.
    pub t: f64,
    /// 1, but for importance sampling.
    pub weight: f64,
}

impl TimeLaw {
    /// Refuses a law that `sde` has no times for.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self, sde: &dyn LinearSde) -> Result<()> {
        let end = sde.span().end;
        let refuse = |expected: String| Err(Error::config("time", expected, format!("{self:?}")));
        match *self {
            Self::Uniform { from, to }
            | Self::ImportanceSampled { from, to }
            | Self::EvenClock { from, to }
            | Self::Levels { from, to, .. }
                if !(0.0 <= from && from < to && to <= end) =>
            {
                refuse(format!("0 <= from < to <= {end}, the end of the process"))
            }
            Self::ImportanceSampled { from, to } | Self::EvenClock { from, to }
                if !(sde.clock(from).is_finite() && sde.clock(to).is_finite()) =>
            {
                refuse(
                    "times with both signal and noise left (move `from` above 0, or `to` below the end)"
                        .into(),
                )
            }
            Self::LogNormal { mean, std } if !(mean.is_finite() && std > 0.0 && std.is_finite()) => {
                refuse("a finite mean and a positive std".into())
            }
            Self::DiscreteIndices { n } if n == 0 || f64::from(n) > end => {
                refuse(format!("1 <= n <= {end}, the end of the process"))
            }
            Self::Levels { n, .. } if n < 2 => refuse("n >= 2, the two ends".into()),
            _ => Ok(()),
        }
    }

    /// Draws a time.
    pub fn draw(&self, sde: &dyn LinearSde, draws: &mut Draws) -> DrawnTime {
        match *self {
            Self::Uniform { from, to } => DrawnTime { t: from + (to - from) * draws.uniform(), weight: 1.0 },
            Self::ImportanceSampled { from, to } => {
                let (first, last) = (sde.clock(from), sde.clock(to));
                let t = sde.time_of_clock(first + (last - first) * draws.uniform()).clamp(from, to);
                // Uniform density over importance density: (1/(to − from)) / (clock'(t)/(last − first)).
                DrawnTime { t, weight: (last - first) / ((to - from) * sde.clock_rate(t)) }
            }
            Self::EvenClock { from, to } => {
                let (first, last) = (sde.clock(from), sde.clock(to));
                let clock = first + (last - first) * draws.uniform();
                DrawnTime { t: sde.time_of_clock(clock).clamp(from, to), weight: 1.0 }
            }
            Self::LogNormal { mean, std } => {
                DrawnTime { t: sde.time_of_clock(mean + std * draws.normal()), weight: 1.0 }
            }
            Self::DiscreteIndices { n } => {
                DrawnTime { t: 1.0 + draws.below(u64::from(n)) as f64, weight: 1.0 }
            }
            Self::Levels { from, to, n } => {
                let fraction = draws.below(u64::from(n)) as f64 / f64::from(n - 1);
                DrawnTime { t: (from + (to - from) * fraction).min(to), weight: 1.0 }
            }
        }
    }
}
