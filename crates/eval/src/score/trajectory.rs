//! How far and how straight the probability flow carries points: along `dx/dt = v(x, t)` from a to b,
//!
//! energy `∫ E ‖v‖² dt`,  straightness `∫ E ‖v − (x_b − x_a)/(b − a)‖² dt = energy − E ‖x_b − x_a‖²/(b − a)`,
//!
//! and, whatever the time, the length of a path over the distance of its ends. A straight path at constant speed has straightness 0 and
//! ratio 1. The integrals are solved with the path, under one error control.
//!
//! Reference: Liu, Gong, Liu 2022 (rectified flow), arXiv 2209.03003, section 2.2, for the straightness; Finlay et al. 2020, arXiv 2002.02798,
//! for the energy.

use candle_core::{DType, Tensor};
use sde_core::{Converted, Field, LinearSde, Prediction};
use sde_solvers::adaptive::Ode;
use sde_solvers::{Adaptive, Chart, Outcome};
use serde::Serialize;

use super::{Noised, Part};
use crate::{Error, Estimate, Nfe, Result};

/// The paths of the noised points.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trajectories {
    /// a.
    pub from: f64,
    /// b.
    pub to: f64,
    /// `∫ E ‖v‖² dt`.
    pub energy: Estimate,
    /// `∫ E ‖v − (x_b − x_a)/(b − a)‖² dt`.
    pub straightness: Estimate,
    /// Straightness over energy: 0 of a straight path, less than 1.
    pub relative_straightness: f64,
    /// Length over distance of the ends: 1 of a straight path.
    pub length_ratio: Estimate,
    /// Evaluations of the velocity for a path.
    pub nfe: Nfe,
    /// Paths that did not arrive; they are left out.
    pub unfinished: usize,
}

/// Energy, length and displacement of one path.
struct PathCost {
    energy: f64,
    length: f64,
    displacement: f64,
    nfe: usize,
    outcome: Outcome,
}

/// Follows the noised points of time `from` to time `to`.
///
/// # Errors
/// When the velocity does not exist at an end, no path arrives, or the field fails.
pub fn trajectories(
    points: &Noised<'_>,
    solver: &Adaptive,
    chart: Chart,
    (from, to): (f64, f64),
) -> Result<Trajectories> {
    if from == to {
        return Err(Error::mismatch("ends of a path", "two times", from));
    }
    for t in [from, to] {
        points.field.prediction().conversion(Prediction::Velocity, points.sde, t)?;
    }
    let paths = points.at(from, |part| follow(part, solver, chart, to))?;
    let samples = paths.len();
    let mut outcomes = paths.iter().map(|path| path.outcome);
    let first = outcomes.find(|outcome| *outcome != Outcome::Finished);
    let nfe = Nfe::of(&paths.iter().map(|path| path.nfe).collect::<Vec<_>>());
    let arrived: Vec<&PathCost> = paths.iter().filter(|path| path.outcome == Outcome::Finished).collect();
    if let (true, Some(first)) = (arrived.is_empty(), first) {
        return Err(Error::Unfinished { samples, first });
    }
    let duration = (to - from).abs();
    let of = |f: &dyn Fn(&PathCost) -> f64| {
        Estimate::mean(&arrived.iter().map(|path| f(path)).collect::<Vec<_>>())
    };
    let energy = of(&|path| path.energy)?;
    let straightness = of(&|path| path.energy - path.displacement.powi(2) / duration)?;
    Ok(Trajectories {
        from,
        to,
        energy,
        straightness,
        relative_straightness: straightness.value / energy.value.max(f64::MIN_POSITIVE),
        // A point that stays where it is goes straight.
        length_ratio: of(&|path| if path.length == 0.0 { 1.0 } else { path.length / path.displacement })?,
        nfe,
        unfinished: samples - arrived.len(),
    })
}

fn follow(part: &Part<'_>, solver: &Adaptive, chart: Chart, to: f64) -> Result<Vec<PathCost>> {
    let (n, flat) = (part.u.dim(0)?, part.u.flatten_from(1)?);
    let dim = flat.dim(1)?;
    let state = Tensor::cat(&[&flat, &Tensor::zeros((n, 2), DType::F64, flat.device())?], 1)?;
    let flow = Costs {
        sde: part.sde,
        field: part.field,
        chart,
        shape: &part.u.dims()[1..],
        ends: (part.t.min(to), part.t.max(to)),
    };
    let (start, stop) = (chart.of(part.sde, part.t), chart.of(part.sde, to));
    let solution = solver.integrate(&flow, &state, start, stop)?;
    let (before, after) = (flat.to_vec2::<f64>()?, solution.y.to_vec2::<f64>()?);
    let rows = before.iter().zip(&after).zip(&solution.reports);
    let cost = |((before, after), report): ((&Vec<f64>, &Vec<f64>), &sde_solvers::adaptive::Report)| {
        let square: f64 = before.iter().zip(after).map(|(a, b)| (b - a).powi(2)).sum();
        let outcome = match report.outcome {
            Outcome::Finished if !(square.is_finite() && after[dim].is_finite()) => Outcome::NonFinite,
            other => other,
        };
        let (energy, length) = (after[dim].abs(), after[dim + 1].abs());
        PathCost { energy, length, displacement: square.sqrt(), nfe: report.nfe, outcome }
    };
    Ok(rows.map(cost).collect())
}

/// The flow of `[x, ∫‖v‖² dt, ∫‖v‖ dt]`.
struct Costs<'a> {
    sde: &'a dyn LinearSde,
    field: &'a dyn Field,
    chart: Chart,
    shape: &'a [usize],
    /// The earlier and the later end.
    ends: (f64, f64),
}

impl Ode for Costs<'_> {
    fn rhs(&self, y: &Tensor, s: &[f64], samples: &[usize]) -> sde_core::Result<Tensor> {
        let restricted = self.field.restrict(samples)?;
        let field = restricted.as_deref().unwrap_or(self.field);
        let dims: Vec<usize> = std::iter::once(samples.len()).chain(self.shape.iter().copied()).collect();
        let x = y.narrow(1, 0, y.dim(1)? - 2)?.contiguous()?.reshape(dims)?;
        // The way to the chart and back may round past an end, where a process need not exist.
        let times: Vec<f64> =
            s.iter().map(|&s| self.chart.time(self.sde, s).clamp(self.ends.0, self.ends.1)).collect();
        let velocity = Converted::new(field, self.sde, Prediction::Velocity).eval(&x, &times)?;
        let velocity = velocity.flatten_from(1)?;
        let square = velocity.sqr()?.sum_keepdim(1)?;
        let rate = Tensor::cat(&[&velocity, &square, &square.sqrt()?], 1)?;
        if self.chart == Chart::Time {
            return Ok(rate);
        }
        let stretch: Vec<f64> = times.iter().map(|&t| self.chart.stretch(self.sde, t)).collect();
        Ok(rate.broadcast_mul(&Tensor::new(stretch, y.device())?.unsqueeze(1)?)?)
    }
}
