//! The probability flow as an ordinary differential equation: `du/dt = F u + ½ G Gᵀ R⁻ᵀ ε`, from noise to data or back.
//!
//! Reference: Song et al. 2021, arXiv 2011.13456, Eq. (13).

use candle_core::Tensor;
use sde_core::noise::NormalSource;
use sde_core::{Converted, Field, LinearSde, Prediction};

use crate::adaptive::{Adaptive, AdaptiveSolution, Ode};
use crate::sampler::{Path, Sampler, Solution};
use crate::{Error, Result};

/// The variable an adaptive solver steps in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chart {
    /// t itself: exists wherever the velocity does.
    Time,
    /// The process's clock, log ρ: even steps near the data; needs signal and noise at both ends.
    Clock,
}

/// The probability flow of a field.
pub struct ProbabilityFlow<'a> {
    sde: &'a dyn LinearSde,
    field: &'a dyn Field,
    chart: Chart,
}

struct Flattened<'a> {
    flow: &'a ProbabilityFlow<'a>,
    shape: &'a [usize],
}

impl<'a> ProbabilityFlow<'a> {
    /// The flow of `field`, a field of `sde`, solved in `chart`.
    pub fn new(sde: &'a dyn LinearSde, field: &'a dyn Field, chart: Chart) -> Self {
        Self { sde, field, chart }
    }

    /// Carries `x` from time `from` to time `to`.
    ///
    /// # Shapes
    /// `x` `[B, …]`; the solution's state has its shape.
    ///
    /// # Errors
    /// Whatever the field returns, and where its conversion to a velocity does not exist. A sample that cannot be finished is not
    /// an error: its report says so.
    pub fn solve(&self, solver: &Adaptive, x: &Tensor, from: f64, to: f64) -> Result<AdaptiveSolution> {
        let shape: Vec<usize> = x.dims()[1..].to_vec();
        let (start, stop) = (self.chart.of(self.sde, from), self.chart.of(self.sde, to));
        let ode = Flattened { flow: self, shape: &shape };
        let mut solution = solver.integrate(&ode, &x.flatten_from(1)?, start, stop)?;
        solution.y = solution.y.reshape(x.dims())?;
        solution.reports.iter_mut().for_each(|report| report.t = self.chart.time(self.sde, report.t));
        Ok(solution)
    }
}

/// The probability flow solved adaptively, as a sampler: the grid gives the two ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveFlow {
    /// Tolerances and limits.
    pub solver: Adaptive,
    /// The variable stepped in; `None` takes what suits the process.
    pub chart: Option<Chart>,
}

impl Sampler for AdaptiveFlow {
    fn sample(&self, path: &Path<'_>, x: &Tensor, _: &dyn NormalSource) -> Result<Solution> {
        let chart = self.chart.unwrap_or_else(|| Chart::natural(path.sde));
        let flow = ProbabilityFlow::new(path.sde, path.field, chart);
        let solution = flow.solve(&self.solver, x, path.grid.start(), path.grid.stop())?;
        if let Some((sample, report)) = solution.unfinished().next() {
            return Err(Error::Unfinished { sample, report: *report });
        }
        Ok(Solution { x: solution.y, nfe: solution.reports.iter().map(|report| report.nfe).collect() })
    }
}

impl Chart {
    /// The variable that suits a process: its clock where it has kinks in t ([`LinearSde::knots`]), which no error estimate sees and
    /// which the clock does not have; t otherwise.
    pub fn natural(sde: &dyn LinearSde) -> Self {
        if sde.knots().is_empty() { Self::Time } else { Self::Clock }
    }

    /// The chart's value at time t.
    pub fn of(self, sde: &dyn LinearSde, t: f64) -> f64 {
        match self {
            Self::Time => t,
            Self::Clock => sde.clock(t),
        }
    }

    /// The time at a value of the chart.
    pub fn time(self, sde: &dyn LinearSde, value: f64) -> f64 {
        match self {
            Self::Time => value,
            Self::Clock => sde.time_of_clock(value),
        }
    }

    /// dt / d chart at time t.
    pub fn stretch(self, sde: &dyn LinearSde, t: f64) -> f64 {
        match self {
            Self::Time => 1.0,
            Self::Clock => 1.0 / sde.clock_rate(t),
        }
    }
}

impl Ode for Flattened<'_> {
    fn rhs(&self, y: &Tensor, s: &[f64], samples: &[usize]) -> sde_core::Result<Tensor> {
        let ProbabilityFlow { sde, field, chart } = self.flow;
        let dims: Vec<usize> = std::iter::once(y.dim(0)?).chain(self.shape.iter().copied()).collect();
        let times: Vec<f64> = s.iter().map(|&s| chart.time(*sde, s)).collect();
        let restricted = field.restrict(samples)?;
        let field = restricted.as_deref().unwrap_or(*field);
        let velocity = Converted::new(field, *sde, Prediction::Velocity).eval(&y.reshape(dims)?, &times)?;
        let velocity = velocity.flatten_from(1)?;
        if *chart == Chart::Time {
            return Ok(velocity);
        }
        let stretch: Vec<f64> = times.iter().map(|&t| chart.stretch(*sde, t)).collect();
        let stretch = Tensor::new(stretch, y.device())?.to_dtype(y.dtype())?.unsqueeze(1)?;
        Ok(velocity.broadcast_mul(&stretch)?)
    }
}
