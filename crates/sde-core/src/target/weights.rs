//! Importance weights, by their logarithms: what they say about log Z, how many samples they are worth, and equal samples made of them.
//!
//! ```text
//! log Ẑ = log (1/N) Σ w_i        E[Ẑ] = Z        ESS = (Σ w_i)² / (N Σ w_i²)
//! ```
//!
//! Ẑ is unbiased and log Ẑ is not: it lies below log Z by half the relative variance of Ẑ, which the error bar (the delta method's) shows the size of. Weights
//! of −∞ are samples that count for nothing.
//!
//! Reference: Kong, Liu, Wong 1994, Sequential imputations and Bayesian missing data problems (ESS); Kitagawa 1996, Monte Carlo filter and smoother
//! (systematic resampling); Zhang 2023 (thesis), Eqs. (5.18)–(5.20).

use crate::noise::Draws;
use crate::{Error, Result};

/// The logarithms of importance weights, checked: none is NaN or +∞, and not all are −∞.
#[derive(Debug, Clone, PartialEq)]
pub struct LogWeights(Vec<f64>);

/// An estimate of log Z.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogMean {
    /// log (1/N) Σ w.
    pub value: f64,
    /// The standard error of the mean relative to the mean, to first order that of `value`; unknown for a single sample.
    pub standard_error: Option<f64>,
}

impl LogWeights {
    /// Takes the logarithms of weights.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for NaN or +∞, and where no weight is positive.
    pub fn new(logs: Vec<f64>) -> Result<Self> {
        let wrong = |log: &f64| log.is_nan() || *log == f64::INFINITY;
        if let Some((i, &found)) = logs.iter().enumerate().find(|(_, log)| wrong(log)) {
            return Err(Error::NonFinite { what: format!("the log weight of sample {i}"), found });
        }
        if logs.iter().all(|log| *log == f64::NEG_INFINITY) {
            return Err(Error::NonFinite {
                what: format!("the largest of {} log weights", logs.len()),
                found: f64::NEG_INFINITY,
            });
        }
        Ok(Self(logs))
    }

    /// The logarithms.
    pub fn logs(&self) -> &[f64] {
        &self.0
    }

    /// The weights over the largest of them, and its logarithm.
    fn relative(&self) -> (Vec<f64>, f64) {
        let top = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (self.0.iter().map(|log| (log - top).exp()).collect(), top)
    }

    /// The weights, normalised to a sum of one.
    pub fn normalised(&self) -> Vec<f64> {
        let weights = self.relative().0;
        let total: f64 = weights.iter().sum();
        weights.iter().map(|w| w / total).collect()
    }

    /// log Ẑ.
    pub fn log_mean(&self) -> LogMean {
        let (weights, top) = self.relative();
        let n = weights.len() as f64;
        let mean = weights.iter().sum::<f64>() / n;
        let squares: f64 = weights.iter().map(|w| (w - mean).powi(2)).sum();
        let error = (weights.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt() / mean);
        LogMean { value: top + mean.ln(), standard_error: error }
    }

    /// ESS, as a share of the samples: in (0, 1].
    pub fn effective_share(&self) -> f64 {
        let weights = self.relative().0;
        let total: f64 = weights.iter().sum();
        total * total / (weights.len() as f64 * weights.iter().map(|w| w * w).sum::<f64>())
    }

    /// `count` indices of samples, sample i as often as `count` times its normalised weight, up to one more or less: systematic resampling, one uniform
    /// number for all.
    pub fn resample(&self, count: usize, draws: &mut Draws) -> Vec<usize> {
        let weights = self.normalised();
        // The last sample with weight takes what rounding leaves over.
        let last = weights.iter().rposition(|w| *w > 0.0).unwrap_or(0);
        let (start, mut sample, mut passed) = (draws.uniform(), 0, weights[0]);
        let mut chosen = Vec::with_capacity(count);
        for k in 0..count {
            let place = (k as f64 + start) / count as f64;
            while passed < place && sample < last {
                sample += 1;
                passed += weights[sample];
            }
            chosen.push(sample);
        }
        chosen
    }
}
