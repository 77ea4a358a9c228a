//! How far a process is from its prior where sampling starts: `KL(N(S x₀, Σ) ‖ N(0, P))` at T, and the data left in a state there.
//!
//! `KL = ½ [tr P⁻¹Σ + (S x₀)ᵀ P⁻¹ S x₀ − D − log det P⁻¹Σ]`; 2.2e-5 nats for each unit entry of VP. Rates of a diffusion matrix drawn as exp(N(0, 1)) are a trap: among 784 the
//! slowest is near 0.04, so e^{−0.2} = 81 % of the data's size is left at `b(T) = 10`, and a sampler that starts from the prior starts from the wrong law.
//!
//! Reference: Song, Durkan, Murray, Ermon 2021, arXiv 2101.09258, Theorem 1, the term of the prior; Du, Zhang, Yang, Du 2023, arXiv 2206.10365, appendix B.2 for
//! the rates.

use super::LinearSde;
use crate::Result;

/// The Kullback–Leibler divergence in nats from the prior to the law at T of the data point `x0`.
///
/// # Errors
/// When the process does not act on so many entries.
pub fn prior_divergence(sde: &dyn LinearSde, x0: &[f64]) -> Result<f64> {
    let (end, dim) = (sde.span().end, x0.len());
    let precision = sde.prior().inverse()?;
    let relative = precision.mul(&sde.covariance(end))?;
    let mean = sde.signal(end).apply_host(x0)?;
    let square: f64 = precision.apply_host(&mean)?.iter().zip(&mean).map(|(a, b)| a * b).sum();
    // tr A − D − log det A is a sum of terms like δ²/2 where A = I + δ; added up separately it keeps an absolute error of rounding.
    let trace = relative.matrix(dim)?.trace();
    Ok(0.5 * (trace - dim as f64 - relative.log_abs_det(dim) + square))
}

/// The largest size at T, in units of the prior's deviation, that a coordinate of data of unit covariance still has: 0.0066 for VP. Sampling from the prior wants it
/// below a few hundredths.
///
/// # Errors
/// When the process's operators do not fit each other.
pub fn signal_left(sde: &dyn LinearSde) -> Result<f64> {
    let signal = sde.signal(sde.span().end);
    Ok(sde.prior().inverse()?.mul(&signal.mul(&signal.transpose())?)?.max_abs().sqrt())
}
