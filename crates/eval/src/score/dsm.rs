//! The denoising score matching loss against time: `E ‖ε̂(u_t, t) − ε‖² / D`, and in units of the score
//! `E ‖R⁻ᵀ(ε̂ − ε)‖₂ / D`, for fixed noise.
//!
//! The first lies between 0 and 1 for a network that does better than predicting nothing; no network reaches 0, because the data and its
//! noise cannot be told apart from u_t alone.
//!
//! Reference: Vincent 2011, "A connection between score matching and denoising autoencoders"; Lai et al. 2022, arXiv 2210.04296,
//! section 3.1, for the second.

use sde_core::{Prediction, convert};
use serde::Serialize;

use super::{Noised, squares};
use crate::{Estimate, Result};

/// The loss at one time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DsmLoss {
    /// The time.
    pub t: f64,
    /// `E ‖ε̂ − ε‖² / D`.
    pub noise: Estimate,
    /// `E ‖s − ∇ log p(u_t | x₀)‖₂ / D`.
    pub score: Estimate,
}

/// The loss at time `t`.
///
/// # Errors
/// When the field predicts what has no noise at `t` (the signal or the noise is gone), or fails.
pub fn dsm_loss(points: &Noised<'_>, t: f64) -> Result<DsmLoss> {
    let dim = points.dim() as f64;
    let to_score = points.sde.factor(t).inverse()?.transpose();
    let pairs = points.at(t, |part| {
        let value = part.field.eval(&part.u, &[t])?;
        let noise = convert(part.sde, (part.field.prediction(), Prediction::Noise), &[t], &part.u, &value)?;
        let error = (noise - &part.eps)?;
        let score = squares(&to_score.apply(&error)?)?;
        Ok(squares(&error)?.into_iter().zip(score).collect())
    })?;
    let (noise, score): (Vec<f64>, Vec<f64>) =
        pairs.into_iter().map(|(noise, score)| (noise / dim, score.sqrt() / dim)).unzip();
    Ok(DsmLoss { t, noise: Estimate::mean(&noise)?, score: Estimate::mean(&score)? })
}
