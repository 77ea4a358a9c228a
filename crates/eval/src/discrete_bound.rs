//! The variational bound of a reverse chain, DDPM's, on any grid of a scalar process: `L_T + Σ_n L_n + L_0`.
//!
//! Times `t_1 < … < t_N`, and the data before them (α = 1, σ = 0). With `s = t_{n−1}`, `t = t_n`, `a = α_t/α_s`,
//! `b² = σ_t² − a² σ_s²`, `b̃² = b² σ_s²/σ_t²`, and v the variance of the model's step,
//!
//! ```text
//! L_T = KL(N(α_T x₀, σ_T²) ‖ π)
//! L_n = ½ [D (b̃²/v − 1 − log(b̃²/v)) + (α_s b²/σ_t²)² ‖x₀ − x̂₀(x_t)‖² / v]     n ≥ 2
//! L_0 = −log p(x₀ | x_{t_1}),   mean x̂₀, variance v
//! ```
//!
//! For levels `p(x₀ | x)` is the mass that the Gaussian has in a level's cell, the outer cells reaching to infinity: a
//! probability, and bits/dim without an offset. Otherwise it is a density. L_T and the first part of L_n are exact; the
//! rest is a mean over draws of n, stratified, with probabilities `∝ ½ (1/ρ_s² − 1/ρ_t²) ρ_t²/(1 + ρ_t²)`.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, Eq. (5), (12), (13); Su, "Topics", ch. 2.
//! Differs: written in x₀, so that it exists where the signal is gone; tails of L_0 are not clipped at 1e-12; the small
//! variance of the last step, which is 0, is that of the step before, as in published code, unless that is less than half of ρ²
//! (on grids with short steps at the data), and ρ² then: x₀ given `x_{t_1}` has that where the data is smooth.

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Stream, host_tensor};
use sde_core::{Converted, Field, LinearSde, Prediction, TimeGrid};
use sde_data::Encoding;

use crate::bound::bound;
use crate::normal::log_interval;
use crate::{Error, LogDensity, PointDensity, Prior, Result};

/// The variance of the steps of a reverse chain.
#[derive(Debug, Clone, PartialEq)]
pub enum ReverseVariance {
    /// b̃², right for data at one point; in L_0 as above.
    Small,
    /// b², right for normal data.
    Large,
    /// Given for n = 1 … N.
    Given(Vec<f64>),
}

/// One step of the chain.
#[derive(Debug, Clone, Copy)]
struct Step {
    t: f64,
    alpha: f64,
    sigma: f64,
    /// b̃².
    posterior: f64,
    /// v.
    variance: f64,
    /// What multiplies ‖x₀ − x̂₀‖².
    weight: f64,
    /// How often it is drawn.
    probability: f64,
}

/// The bound of a chain, with its prior and draws.
pub struct DiscreteBound<'a> {
    sde: &'a dyn LinearSde,
    field: &'a dyn Field,
    prior: Prior<'a>,
    encoding: Encoding,
    /// n = 1 … N.
    steps: Vec<Step>,
    draws: usize,
}

impl<'a> DiscreteBound<'a> {
    /// The chain through the times of `grid` that have noise, of data with an encoding; each point is given `draws` draws, two
    /// evaluations each.
    ///
    /// # Errors
    /// For a process that is not scalar, variances that do not fit the grid, and no draws.
    pub fn new(
        (sde, field): (&'a dyn LinearSde, &'a dyn Field),
        prior: Prior<'a>,
        grid: &TimeGrid,
        variance: &ReverseVariance,
        encoding: Encoding,
        draws: usize,
    ) -> Result<Self> {
        if draws == 0 {
            return Err(Error::mismatch("draws of a bound", "at least 1", 0));
        }
        let mut steps = Vec::with_capacity(grid.times().len());
        let (mut alpha_s, mut sigma_s) = (1.0, 0.0);
        for &t in grid.times().iter().rev() {
            let [alpha, sigma] = scalars(sde, t)?;
            if sigma == 0.0 {
                continue;
            }
            let (a, square) = (alpha / alpha_s, sigma * sigma);
            let forward = square - a * a * sigma_s * sigma_s;
            let posterior = forward * sigma_s * sigma_s / square;
            let v = match variance {
                ReverseVariance::Small => posterior,
                ReverseVariance::Large => forward,
                ReverseVariance::Given(all) => all.get(steps.len()).copied().unwrap_or(f64::NAN),
            };
            let weight = (alpha_s * forward / square).powi(2) / (2.0 * v);
            // 1/ρ² is α²/σ², which is 0 and not infinite where the signal is gone.
            let signal = [alpha_s * alpha_s / (sigma_s * sigma_s), alpha * alpha / square];
            let probability = 0.5 * (signal[0] - signal[1]) / (1.0 + signal[1]);
            steps.push(Step { t, alpha, sigma, posterior, variance: v, weight, probability });
            (alpha_s, sigma_s) = (alpha, sigma);
        }
        let next = steps.get(1).map_or(0.0, |step| step.posterior);
        if let (ReverseVariance::Small, Some(first)) = (variance, steps.first_mut()) {
            let forward = (first.sigma / first.alpha).powi(2);
            first.variance = if next >= 0.5 * forward { next } else { forward };
        }
        if let Some(bad) = steps.iter().find(|step| !(step.variance > 0.0 && step.variance.is_finite())) {
            let expected = format!("one above 0 for each of {} steps", steps.len());
            let found = format!("{} at t = {}", bad.variance, bad.t);
            return Err(Error::mismatch("variances of a reverse chain", expected, found));
        }
        let total: f64 = steps.iter().skip(1).map(|step| step.probability).sum();
        steps.iter_mut().for_each(|step| step.probability /= total);
        Ok(Self { sde, field, prior, encoding, steps, draws })
    }

    /// N.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The step n ≥ 2 at a place in (0, 1) of their probabilities; none if there is but one step.
    fn at(&self, place: f64) -> Option<&Step> {
        let mut left = place;
        let mut steps = self.steps.iter().skip(1);
        let last = self.steps.iter().skip(1).next_back();
        steps
            .find(|step| {
                left -= step.probability;
                left < 0.0
            })
            .or(last)
    }

    /// What is known without a draw: the parts of L_n that hold no prediction, and L_T under the standard prior.
    fn known(&self, x: &[f64]) -> Result<f64> {
        let dim = x.len() as f64;
        let of_step = |step: &Step| {
            let ratio = step.posterior / step.variance;
            0.5 * dim * (ratio - 1.0 - ratio.ln())
        };
        let mut total: f64 = self.steps.iter().skip(1).map(of_step).sum();
        if let (Prior::Standard, Some(last)) = (&self.prior, self.steps.last()) {
            let prior = self.sde.prior().as_scalar().unwrap_or(f64::NAN);
            let ratio = last.sigma * last.sigma / prior;
            let square: f64 = x.iter().map(|x| (last.alpha * x).powi(2)).sum();
            total += 0.5 * (dim * (ratio - 1.0 - ratio.ln()) + square / prior);
        }
        Ok(total)
    }

    /// −log p(x₀ | x_{t_1}) from the predicted data.
    fn decoded(&self, x: &[f64], mean: &[f64]) -> f64 {
        let deviation = self.steps[0].variance.sqrt();
        let Encoding::Quantised { levels, range } = self.encoding else {
            let square: f64 = x.iter().zip(mean).map(|(x, m)| ((x - m) / deviation).powi(2)).sum();
            return 0.5 * square + x.len() as f64 * (deviation * std::f64::consts::TAU.sqrt()).ln();
        };
        let (top, cell) = (f64::from(levels) - 1.0, range.width() / (f64::from(levels) - 1.0));
        let of_entry = |(x, mean): (&f64, &f64)| {
            let level = ((x - range.low()) / cell).round();
            let edge = |half: f64| (range.low() + cell * (level + half) - mean) / deviation;
            let low = if level <= 0.0 { f64::NEG_INFINITY } else { edge(-0.5) };
            let high = if level >= top { f64::INFINITY } else { edge(0.5) };
            -log_interval(low, high)
        };
        x.iter().zip(mean).map(of_entry).sum()
    }

    /// One draw of what is random, for each point.
    fn draw(&self, points: &[&[f64]], noise: &BatchNoise, j: usize, dims: &[usize]) -> Result<Vec<f64>> {
        let Some(&first) = self.steps.first() else { return Ok(vec![0.0; points.len()]) };
        let (mut times, mut states, mut drawn) = (Vec::new(), Vec::new(), Vec::new());
        let streams = |site: usize| noise.draws(Stream::Metric, (2 * j + site) as u32).into_iter();
        for (x, (mut place, mut normals)) in points.iter().zip(streams(0).zip(streams(1))) {
            let step = self.at((j as f64 + place.uniform()) / self.draws as f64).copied();
            for step in [first, step.unwrap_or(first)] {
                states.extend(x.iter().map(|x| step.alpha * x + step.sigma * normals.normal()));
                times.push(step.t);
            }
            let z: Vec<f64> = x.iter().map(|_| normals.normal()).collect();
            drawn.push((step, z));
        }
        let dims: Vec<usize> = std::iter::once(times.len()).chain(dims.iter().copied()).collect();
        let states = host_tensor(states, &dims, DType::F64, &Device::Cpu)?;
        let data = Converted::new(self.field, self.sde, Prediction::Data).eval(&states, &times)?;
        let data = data.flatten_from(1)?.to_vec2::<f64>()?;
        let mut values = Vec::with_capacity(points.len());
        for ((pair, x), (step, z)) in data.chunks(2).zip(points).zip(&drawn) {
            let mut total = self.decoded(x, &pair[0]) + self.prior_at(x, z)?;
            if let Some(step) = step {
                let square: f64 = x.iter().zip(&pair[1]).map(|(x, m)| (x - m).powi(2)).sum();
                total += step.weight / step.probability * square;
            }
            values.push(total);
        }
        Ok(values)
    }

    /// `log q(x_T | x₀) − log π(x_T)` at one draw, of an exact prior.
    fn prior_at(&self, x: &[f64], z: &[f64]) -> sde_core::Result<f64> {
        let (Some(last), Prior::Exact(_)) = (self.steps.last(), &self.prior) else { return Ok(0.0) };
        let state: Vec<f64> = x.iter().zip(z).map(|(x, z)| last.alpha * x + last.sigma * z).collect();
        let density = self.prior.log_density(self.sde, last.t, std::iter::once(state.as_slice()))?[0];
        let square: f64 = z.iter().map(|z| z * z).sum();
        let conditional = -0.5 * square - x.len() as f64 * (last.sigma * std::f64::consts::TAU.sqrt()).ln();
        Ok(conditional - density)
    }
}

fn scalars(sde: &dyn LinearSde, t: f64) -> Result<[f64; 2]> {
    match (sde.signal(t).as_scalar(), sde.factor(t).as_scalar()) {
        (Some(alpha), Some(sigma)) => Ok([alpha, sigma]),
        _ => {
            let expected = "a process that treats all coordinates alike (the bound of the SDE takes any)";
            Err(Error::mismatch("discrete bound", expected, sde.signal(t).describe()))
        }
    }
}

impl PointDensity for DiscreteBound<'_> {
    /// The bound of each point, a mean over stratified draws.
    fn log_density(&self, x: &Tensor, noise: &BatchNoise) -> Result<Vec<LogDensity>> {
        let known = |x: &[f64]| Ok(-self.known(x)?);
        bound(x, noise, self.draws, known, |points, j| self.draw(points, noise, j, &x.dims()[1..]))
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn is_of_levels(&self) -> bool {
        matches!(self.encoding, Encoding::Quantised { .. })
    }
}
