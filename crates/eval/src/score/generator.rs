//! The rate of the log density at a fixed state, from the score alone, and the density that it adds up to:
//!
//! `∂ log q_t(x)/∂t = L[s](x, t) = ½ tr(𝒟 ∇s) + ½ sᵀ𝒟 s − (F x)·s − tr F`,  `log q_t(x) = log q_T(x) − ∫_t^T L[s](x, τ) dτ`.
//!
//! No path is followed: the score is asked at x at all times, so it is the density of exact scores, and of a network what its
//! values where it was hardly trained make of it (x at late times is a common state, x of noise at early ones is not).
//!
//! Reference: Lai et al. 2022, arXiv 2210.04296, Proposition 3.1; Proposition 4.4 for the integral.

use candle_core::Tensor;
use sde_core::noise::{BatchNoise, Noise};
use sde_core::quadrature::GaussLegendre;
use sde_core::{Converted, Field, LinearSde, Prediction};
use sde_solvers::Divergence;

use super::dot;
use crate::Result;

/// Nodes of a panel of the integral.
const NODES: usize = 8;

/// Times and weights of an integral over t: panels even in the process's clock.
///
/// # Errors
/// For times that its clock does not reach, and no panels.
pub fn time_nodes(sde: &dyn LinearSde, (from, to): (f64, f64), panels: usize) -> Result<Vec<(f64, f64)>> {
    let (low, high) = (sde.clock(from), sde.clock(to));
    if !(low.is_finite() && high.is_finite() && low < high && panels > 0) {
        let expected = "increasing times with signal and noise, and a panel or more";
        return Err(crate::Error::mismatch(
            "times of an integral",
            expected,
            format!("{from} to {to}, {panels} panels"),
        ));
    }
    let rule = GaussLegendre::new(NODES);
    let width = (high - low) / panels as f64;
    let nodes = (0..panels).flat_map(|k| {
        let first = low + width * k as f64;
        rule.on(first, first + width).collect::<Vec<_>>()
    });
    Ok(nodes
        .map(|(clock, weight)| {
            let t = sde.time_of_clock(clock);
            (t, weight / sde.clock_rate(t))
        })
        .collect())
}

/// `L[s]` of each state, exactly, by as many vector–Jacobian products as there are dimensions.
///
/// # Shapes
/// `u` `[B, …]` f64.
///
/// # Errors
/// Those of the field's derivatives.
pub fn generator(sde: &dyn LinearSde, field: &dyn Field, u: &Tensor, t: f64) -> Result<Vec<f64>> {
    let score = Converted::new(field, sde, Prediction::Score);
    let axes = Divergence::Exact.probes(&BatchNoise::new(Noise::new(0), 0, []), u)?;
    let (drift, diffusion) = (sde.drift(t), sde.diffusion(t));
    let turned = axes.iter().map(|a| diffusion.apply(a)).collect::<sde_core::Result<Vec<_>>>()?;
    let (s, products) = score.vjps(u, &[t], &turned)?;
    let pull = ((diffusion.apply(&s)? * 0.5)? - drift.apply(u)?)?;
    let trace = drift.trace(u.dims()[1..].iter().product());
    let mut sum: Vec<f64> = dot(&pull, &s)?.into_iter().map(|v| v - trace).collect();
    for (axis, product) in axes.iter().zip(&products) {
        sum.iter_mut().zip(dot(axis, product)?).for_each(|(sum, v)| *sum += 0.5 * v);
    }
    Ok(sum)
}

/// `log q_t − log q_T` of each state at t = `from`, T = `to`, by `panels` panels of eight times.
///
/// # Shapes
/// `u` `[B, …]` f64.
///
/// # Errors
/// As [`generator`] and [`time_nodes`].
pub fn density_by_generator(
    sde: &dyn LinearSde,
    field: &dyn Field,
    u: &Tensor,
    times: (f64, f64),
    panels: usize,
) -> Result<Vec<f64>> {
    let mut sum = vec![0.0; u.dim(0)?];
    for (t, weight) in time_nodes(sde, times, panels)? {
        sum.iter_mut().zip(generator(sde, field, u, t)?).for_each(|(sum, l)| *sum -= weight * l);
    }
    Ok(sum)
}
