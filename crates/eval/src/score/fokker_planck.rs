//! How far a score is from solving the equation that every family of noised densities solves: the Fokker–Planck equation of its
//! logarithm, differentiated. With `𝒟 = G Gᵀ`,
//!
//! `ϵ[s] = ∂s/∂t − ∇L[s]`,  `L[s] = ½ tr(𝒟 ∇s) + ½ sᵀ𝒟 s − (F u)·s − tr F`.
//!
//! All but the trace has a gradient by one vector–Jacobian product, `Jᵀ(𝒟 s − F u) − Fᵀ s`; that of the trace, a second derivative, is
//! taken by differences of products, and ∂s/∂t by differences in the process's clock, both at five points. Along axes ϵ is a vector and
//! its norm exact. In high dimension `E ‖ϵ‖²` is the mean of `(v·ϵ̂)(v·ϵ̂′)`, with two independent estimates of the trace: a single one
//! would count its own variance as a residual.
//!
//! Reference: Lai et al. 2022 (FP-Diffusion), arXiv 2210.04296, Proposition 3.1 and section 3.1.
//! Differs: squares are unbiased, where the paper takes the norm of an estimate from one probe, which is far from 0 for an exact score;
//! differences in time are of order four, and never look at a time outside the process.

use candle_core::Tensor;
use sde_core::noise::{BatchNoise, Noise};
use sde_core::{Converted, Field, LinearSde, Prediction};
use sde_solvers::Divergence;
use serde::Serialize;

use super::stencil::{Stencil, Steps};
use super::{Directions, Noised, Part, dot, squares};
use crate::{Error, Estimate, Result};

/// The residual at one time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FokkerPlanck {
    /// The time.
    pub t: f64,
    /// `E ‖ϵ‖₂ / D`, along axes only: of an estimate the norm is biased.
    pub norm: Option<Estimate>,
    /// `E ‖ϵ‖₂² / D²`; from random directions it may be negative.
    pub squared: Estimate,
    /// `E ‖∂s/∂t‖₂² / D²`, what the residual is to be compared with.
    pub rate_squared: Estimate,
    /// The root mean square of what differences of order four and two make of ϵ, over D: an upper bound on their error.
    pub difference_error: f64,
}

impl FokkerPlanck {
    /// `√(E ‖ϵ‖² / E ‖∂s/∂t‖²)`: 0 of a solution, about 1 of what has nothing to do with one.
    pub fn relative(&self) -> f64 {
        (self.squared.value.max(0.0) / self.rate_squared.value.max(f64::MIN_POSITIVE)).sqrt()
    }
}

/// The residual over the noised points at time `t`.
///
/// # Errors
/// For times outside the process, no probes, and whatever the field's derivatives return.
pub fn fokker_planck(
    points: &Noised<'_>,
    t: f64,
    directions: Directions,
    steps: Steps,
) -> Result<FokkerPlanck> {
    let dim = points.dim() as f64;
    if directions == (Directions::Random { probes: 0 }) {
        return Err(Error::mismatch("probes of a residual", "at least 1", 0));
    }
    let found = points.at(t, |part| match directions {
        Directions::Axes => along_axes(part, steps),
        Directions::Random { probes } => along_signs(part, probes, steps),
    })?;
    let of = |pick: fn(&Sample) -> f64| found.iter().map(pick).collect::<Vec<f64>>();
    let squared = of(|s| s.squared);
    let norm = (directions == Directions::Axes)
        .then(|| Estimate::mean(&squared.iter().map(|s| s.sqrt() / dim).collect::<Vec<_>>()))
        .transpose()?;
    let scale = dim.powi(-2);
    Ok(FokkerPlanck {
        t,
        norm,
        squared: Estimate::mean(&squared)?.affine(scale, 0.0),
        rate_squared: Estimate::mean(&of(|s| s.rate))?.affine(scale, 0.0),
        difference_error: (Estimate::mean(&of(|s| s.error))?.value * scale).sqrt(),
    })
}

/// ϵ at given states, along axes.
///
/// # Shapes
/// `u` `[B, …]` f64; so is the residual.
///
/// # Errors
/// As [`fokker_planck`].
pub fn fokker_planck_residual(
    sde: &dyn LinearSde,
    field: &dyn Field,
    u: &Tensor,
    t: f64,
    steps: Steps,
) -> Result<Tensor> {
    let score = Converted::new(field, sde, Prediction::Score);
    let axes = Divergence::Exact.probes(&BatchNoise::new(Noise::new(0), 0, []), u)?;
    let equation = Equation { sde, score: &score, u, t, steps };
    Ok((equation.smooth(&equation.rate()?)?.fine - equation.gradient_of_trace(&axes)?.fine)?)
}

/// `∇ ½ tr(𝒟 ∇s)` of a score at given states.
pub(super) fn trace_gradient(
    sde: &dyn LinearSde,
    score: &dyn Field,
    u: &Tensor,
    t: f64,
    steps: Steps,
) -> Result<Tensor> {
    let axes = Divergence::Exact.probes(&BatchNoise::new(Noise::new(0), 0, []), u)?;
    Ok(Equation { sde, score, u, t, steps }.gradient_of_trace(&axes)?.fine)
}

/// What one point has to say.
struct Sample {
    /// ‖ϵ‖², or an unbiased estimate.
    squared: f64,
    /// ‖∂s/∂t‖².
    rate: f64,
    /// ‖ϵ₄ − ϵ₂‖², likewise.
    error: f64,
}

/// A quantity by differences of order four, and of order two.
struct Pair<T> {
    fine: T,
    coarse: T,
}

fn along_axes(part: &Part<'_>, steps: Steps) -> Result<Vec<Sample>> {
    let score = part.score();
    let equation = Equation { sde: part.sde, score: &score, u: &part.u, t: part.t, steps };
    let rate = equation.rate()?;
    let (smooth, trace) = (equation.smooth(&rate)?, equation.gradient_of_trace(&part.axes()?)?);
    let fine = (smooth.fine - trace.fine)?;
    let error = (&fine - (smooth.coarse - trace.coarse)?)?;
    let (fine, rate, error) = (squares(&fine)?, squares(&rate.fine)?, squares(&error)?);
    let each = fine.into_iter().zip(rate).zip(error);
    Ok(each.map(|((squared, rate), error)| Sample { squared, rate, error }).collect())
}

fn along_signs(part: &Part<'_>, probes: usize, steps: Steps) -> Result<Vec<Sample>> {
    let score = part.score();
    let equation = Equation { sde: part.sde, score: &score, u: &part.u, t: part.t, steps };
    let rate = equation.rate()?;
    let smooth = equation.smooth(&rate)?;
    let mut samples: Vec<Sample> =
        squares(&rate.fine)?.into_iter().map(|rate| Sample { squared: 0.0, rate, error: 0.0 }).collect();
    for k in 0..probes {
        let v = part.signs(3 * k)?;
        let pair = [part.signs(3 * k + 1)?, part.signs(3 * k + 2)?];
        let (fine, coarse) = (dot(&smooth.fine, &v)?, dot(&smooth.coarse, &v)?);
        let traces = equation.slopes_of_traces(&v, &pair)?;
        for (i, sample) in samples.iter_mut().enumerate() {
            let of = |j: usize| fine[i] - traces[j].fine[i];
            let error = |j: usize| of(j) - (coarse[i] - traces[j].coarse[i]);
            sample.squared += of(0) * of(1) / probes as f64;
            sample.error += (0.5 * (error(0) + error(1))).powi(2) / probes as f64;
        }
    }
    Ok(samples)
}

/// The equation at some states and one time.
struct Equation<'a> {
    sde: &'a dyn LinearSde,
    score: &'a dyn Field,
    u: &'a Tensor,
    t: f64,
    steps: Steps,
}

impl Equation<'_> {
    /// ∂s/∂t.
    fn rate(&self) -> Result<Pair<Tensor>> {
        let span = self.sde.span();
        let stencil = Stencil::in_clock(self.sde, self.t, self.steps.clock, (span.likelihood, span.end))?;
        let values = stencil.nodes.iter().map(|&t| Ok(self.score.eval(self.u, &[t])?.detach()));
        combine(&stencil, &values.collect::<Result<Vec<_>>>()?)
    }

    /// `∂s/∂t − ∇[½ sᵀ𝒟 s − (F u)·s]`, of a given ∂s/∂t.
    fn smooth(&self, rate: &Pair<Tensor>) -> Result<Pair<Tensor>> {
        let (drift, diffusion) = (self.sde.drift(self.t), self.sde.diffusion(self.t));
        let cotangent = |s: &Tensor| Ok(vec![(diffusion.apply(s)? - drift.apply(self.u)?)?]);
        let (s, products) = self.score.pull_back(self.u, &[self.t], &cotangent)?;
        let mut gradient = drift.transpose().apply(&s)?.neg()?;
        for product in products {
            gradient = (gradient + product)?;
        }
        Ok(Pair { fine: (&rate.fine - &gradient)?, coarse: (&rate.coarse - &gradient)? })
    }

    /// `½ aᵀ𝒟 J a` at the states moved by `shift`, summed over each group of directions.
    fn traces(&self, shift: &Tensor, groups: &[&[Tensor]]) -> Result<Vec<Tensor>> {
        let diffusion = self.sde.diffusion(self.t);
        let at = (self.u + shift)?;
        let cotangents = groups.iter().flat_map(|group| group.iter().map(|a| diffusion.apply(a)));
        let cotangents = cotangents.collect::<sde_core::Result<Vec<_>>>()?;
        let mut products = self.score.vjps(&at, &[self.t], &cotangents)?.1.into_iter();
        let sum = |group: &&[Tensor]| {
            let mut sum = Tensor::zeros(self.u.dim(0)?, self.u.dtype(), self.u.device())?;
            for (a, product) in group.iter().zip(products.by_ref()) {
                sum = (sum + ((a * product)?.flatten_from(1)?.sum(1)? * 0.5)?)?;
            }
            Ok(sum)
        };
        groups.iter().map(sum).collect()
    }

    /// The derivatives along `v` of `½ aᵀ𝒟 J a`, for each `a` alone.
    fn slopes_of_traces(&self, v: &Tensor, directions: &[Tensor]) -> Result<Vec<Pair<Vec<f64>>>> {
        let groups: Vec<&[Tensor]> = directions.chunks(1).collect();
        let slopes = self.slopes(v, &groups)?;
        slopes
            .into_iter()
            .map(|pair| Ok(Pair { fine: pair.fine.to_vec1()?, coarse: pair.coarse.to_vec1()? }))
            .collect()
    }

    /// `∇ ½ tr(𝒟 J)`, by differences along each axis.
    fn gradient_of_trace(&self, axes: &[Tensor]) -> Result<Pair<Tensor>> {
        let mut sum = Pair { fine: self.u.zeros_like()?, coarse: self.u.zeros_like()? };
        for axis in axes {
            for pair in self.slopes(axis, &[axes])? {
                let along = |slope: Tensor| {
                    let mut dims = vec![1; axis.rank()];
                    dims[0] = slope.dim(0)?;
                    axis.broadcast_mul(&slope.reshape(dims)?)
                };
                sum.fine = (sum.fine + along(pair.fine)?)?;
                sum.coarse = (sum.coarse + along(pair.coarse)?)?;
            }
        }
        Ok(sum)
    }

    /// The derivatives along `v` of the traces of each group.
    fn slopes(&self, v: &Tensor, groups: &[&[Tensor]]) -> Result<Vec<Pair<Tensor>>> {
        let scale = self.sde.factor(self.t).max_abs();
        let stencil = Stencil::central(self.steps.state * scale);
        let moved = stencil.nodes.iter().map(|&h| self.traces(&(v * h)?, groups));
        let moved = moved.collect::<Result<Vec<_>>>()?;
        (0..groups.len())
            .map(|g| combine(&stencil, &moved.iter().map(|traces| traces[g].clone()).collect::<Vec<_>>()))
            .collect()
    }
}

fn combine(stencil: &Stencil, values: &[Tensor]) -> Result<Pair<Tensor>> {
    let sum = |weights: &[f64]| {
        let mut sum: Option<Tensor> = None;
        for (value, &weight) in values.iter().zip(weights) {
            let term = (value * weight)?;
            sum = Some(match sum {
                None => term,
                Some(sum) => (sum + term)?,
            });
        }
        sum.ok_or_else(|| Error::mismatch("nodes of a derivative", "at least one", 0))
    };
    Ok(Pair { fine: sum(&stencil.fine)?, coarse: sum(&stencil.coarse)? })
}
