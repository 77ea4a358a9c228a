//! log Z from samples of a target and of a Gaussian fitted to it: bridge sampling.
//!
//! With l = log μ̂ − log q, n₁ samples x of μ and n₂ samples y of q, M = log n₁/n₂ and σ the logistic function, log Ẑ is the one root of
//!
//! ```text
//! Σ_y σ(l(y) + M − log Ẑ) = Σ_x σ(log Ẑ − M − l(x))
//! Var log Ẑ ≈ 1 / Σ_{x,y} σ(l + M − log Ẑ) σ(log Ẑ − M − l) − (n₁ + n₂)/(n₁ n₂)
//! ```
//!
//! which is the estimate of least variance of all bridges, for independent samples; q is fitted to other samples than those that enter. It is only as right as
//! the samples: chains that have not found a mode do not know its mass. Beside it stands a lower bound that needs no chain to have arrived, E_q\[l\] ≤ log Z.
//!
//! Reference: Bennett 1976, doi 10.1016/0021-9991(76)90078-4, eq. 12; Meng, Wong 1996, "Simulating ratios of normalizing constants", eq. 4.1;
//! the variance: Shirts, Chodera 2008, arXiv 0801.1426, eq. D8.

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};
use sde_core::Target;
use sde_core::noise::{Noise, Stream};
use sde_core::target::{Drawn, LogMean};

use super::law::Points;
use crate::{Error, Result};

/// How q is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fit {
    /// Not at all: log Z is not estimated.
    None,
    /// Means and variances.
    Diagonal,
    /// Means and covariances; needs at least 2D + 3 samples, so that more than D + 1 are there to fit to.
    Full,
}

/// A Gaussian with a triangular factor of its covariance.
struct Gaussian {
    mean: DVector<f64>,
    factor: Cholesky<f64, Dyn>,
}

impl Gaussian {
    fn fitted(rows: &[f64], dim: usize, fit: Fit) -> Result<Self> {
        let n = rows.len() / dim;
        let refused = Error::Fit { samples: n, dim };
        // Fewer have no covariance of full rank, whatever rounding makes of its factor; one more has no stable one.
        if n < 2 || (fit == Fit::Full && n <= dim + 1) {
            return Err(refused);
        }
        let data = DMatrix::from_row_slice(n, dim, rows);
        let mean = data.row_mean().transpose();
        let centred = DMatrix::from_fn(n, dim, |i, k| data[(i, k)] - mean[k]);
        let share = 1.0 / (n as f64 - 1.0);
        let covariance = match fit {
            Fit::Full => centred.tr_mul(&centred) * share,
            Fit::Diagonal | Fit::None => DMatrix::from_diagonal(&DVector::from_fn(dim, |k, _| {
                share * centred.column(k).norm_squared()
            })),
        };
        let factor = Cholesky::new(covariance).ok_or(refused)?;
        Ok(Self { mean, factor })
    }

    fn log(&self, x: &[f64]) -> Result<f64> {
        let away = DVector::from_column_slice(x) - &self.mean;
        let lower = self.factor.l_dirty();
        let whitened = lower.solve_lower_triangular(&away).ok_or_else(|| sde_core::Error::NonFinite {
            what: "the inverse of a fitted covariance's factor".into(),
            found: f64::INFINITY,
        })?;
        let log_determinant: f64 = (0..x.len()).map(|k| lower[(k, k)].ln()).sum();
        Ok(-0.5 * (whitened.norm_squared() + x.len() as f64 * std::f64::consts::TAU.ln()) - log_determinant)
    }

    /// Draws of n samples, at addresses of their own.
    fn draw(&self, n: usize, noise: Noise) -> Vec<f64> {
        const SITE: u32 = 2;
        let lower = self.factor.l();
        let one = |i: u32| {
            let mut draws = noise.draws_at(Stream::Sampler, SITE, 0, i);
            let normal = DVector::from_fn(self.mean.len(), |_, _| draws.normal());
            let point = &lower * normal + &self.mean;
            point.as_slice().to_vec()
        };
        (0..n as u32).flat_map(one).collect()
    }
}

/// The root log Ẑ, from l at samples of the target and at samples of the Gaussian.
///
/// What is not finite among the first is no sample of the target, and is left out; among the second it is a point without density, and counts.
///
/// # Errors
/// If one of the lists is empty or no density is finite.
pub fn log_normaliser(of_target: &[f64], of_gaussian: &[f64]) -> Result<LogMean> {
    let finite = |logs: &[f64]| logs.iter().copied().filter(|l| l.is_finite()).collect::<Vec<f64>>();
    let (inside, outside) = (finite(of_target), finite(of_gaussian));
    let (n1, n2) = (inside.len() as f64, of_gaussian.len() as f64);
    if inside.is_empty() || outside.is_empty() {
        return Err(Error::NoOverlap);
    }
    let shift = (n1 / n2).ln();
    let logistic = |z: f64| 1.0 / (1.0 + (-z).exp());
    // Falls with log Z. A point without density adds nothing on the left, and cannot be a sample of the target.
    let excess = |log: f64| {
        outside.iter().map(|l| logistic(l + shift - log)).sum::<f64>()
            - inside.iter().map(|l| logistic(log - shift - l)).sum::<f64>()
    };
    let all = || inside.iter().chain(&outside).copied();
    let margin = (n1 + n2).ln() + shift.abs() + 50.0;
    let mut low = all().fold(f64::INFINITY, f64::min) - margin;
    let mut high = all().fold(f64::NEG_INFINITY, f64::max) + margin;
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if excess(middle) > 0.0 { low = middle } else { high = middle }
    }
    let value = 0.5 * (low + high);
    let overlap: f64 = all().map(|l| logistic(l + shift - value) * logistic(value - shift - l)).sum();
    let variance = (1.0 / overlap - (n1 + n2) / (n1 * n2)).max(0.0);
    Ok(LogMean { value, standard_error: Some(variance.sqrt()) })
}

/// Fits q to every second sample, and bridges from it to the others: the estimate, and E_q\[l\].
fn estimated(target: &dyn Target, points: &Points, fit: Fit, noise: Noise) -> Result<(LogMean, f64)> {
    let (n, dim) = (points.len(), points.dim());
    if n < 4 {
        return Err(Error::Fit { samples: n / 2, dim });
    }
    let even: Vec<f64> = (0..n).step_by(2).flat_map(|i| points.row(i).to_vec()).collect();
    let q = Gaussian::fitted(&even, dim, fit)?;
    let gap = |points: &Points, i: usize| Ok(points.value[i] - q.log(points.row(i))?);
    let odd = (1..n).step_by(2).map(|i| gap(points, i)).collect::<Result<Vec<f64>>>()?;
    let drawn = Points::at(target, q.draw(odd.len(), noise))?;
    let logs = (0..drawn.len()).map(|i| gap(&drawn, i)).collect::<Result<Vec<f64>>>()?;
    let bound = logs.iter().sum::<f64>() / logs.len() as f64;
    Ok((log_normaliser(&odd, &logs)?, bound))
}

/// What chains have found, with log Z bridged to it.
pub(super) fn finished(
    target: &dyn Target,
    points: &Points,
    fit: Fit,
    noise: Noise,
    evaluations: u64,
) -> Result<Drawn> {
    let estimate = if fit == Fit::None { None } else { Some(estimated(target, points, fit, noise)?) };
    Ok(Drawn {
        samples: points.tensor()?,
        weights: None,
        lowest_share: None,
        log_normaliser: estimate.map(|(log, _)| log.value),
        bound: estimate.map(|(_, bound)| bound).filter(|bound| bound.is_finite()),
        evaluations: evaluations + if estimate.is_some() { points.len() as u64 / 2 } else { 0 },
    })
}
