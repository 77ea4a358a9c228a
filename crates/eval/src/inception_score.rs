//! Inception Score: `exp(E_x KL(p(y|x) ‖ p(y)))`, of a classifier's logits, p(y) the mean over the samples.
//!
//! The mean and spread over contiguous parts of the samples are what is customarily told. The score of n samples of many classes reads
//! low, so only scores of equal sizes and parts compare; the standard error `s/√parts` knows nothing of that.
//!
//! Reference: Salimans et al. 2016, arXiv 1606.03498, section 4.

use candle_core::Tensor;
use serde::Serialize;

use crate::estimate::variance;
use crate::rows::Rows;
use crate::{Error, Estimate, Result};

/// The score of samples in parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InceptionScore {
    /// The mean over parts; its standard error is unknown for one part.
    pub estimate: Estimate,
    /// The standard deviation over parts, with their number as the divisor.
    pub spread: f64,
}

/// The score of samples in `parts` contiguous parts (others take 10).
///
/// # Shapes
/// `logits` `[N, classes]`.
///
/// # Errors
/// Unless every part has a sample.
pub fn inception_score(logits: &Tensor, parts: usize) -> Result<InceptionScore> {
    let logits = Rows::new(logits, "logits")?;
    let n = logits.len();
    if parts == 0 || parts > n {
        return Err(Error::mismatch("parts of an Inception Score", format!("1 to {n}"), parts));
    }
    let scores: Vec<f64> = (0..parts)
        .map(|k| score(&logits.slice(k * n / parts, (k + 1) * n / parts - k * n / parts)))
        .collect();
    let spread = variance(&scores).map_or(0.0, |v| v * (parts - 1) as f64 / parts as f64).sqrt();
    Ok(InceptionScore { estimate: Estimate { n, ..Estimate::mean(&scores)? }, spread })
}

fn score(logits: &Rows) -> f64 {
    let n = logits.len() as f64;
    let log_p = |i: usize| {
        let row = logits.row(i);
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total = most + row.iter().map(|v| (v - most).exp()).sum::<f64>().ln();
        row.iter().map(move |v| v - total)
    };
    let mut marginal = vec![0.0; logits.dim()];
    for i in 0..logits.len() {
        marginal.iter_mut().zip(log_p(i)).for_each(|(p, log)| *p += log.exp() / n);
    }
    let divergence = |i: usize| {
        log_p(i)
            .zip(&marginal)
            .map(|(log, p)| log.exp() * (log - p.ln()))
            .filter(|v| !v.is_nan())
            .sum::<f64>()
    };
    ((0..logits.len()).map(divergence).sum::<f64>() / n).exp()
}
