//! Log density by the probability flow: the instantaneous change of variables along `dx/dt = v(x, t)`,
//!
//! `log p_{t₀}(x) = log p_T(x_T) + ∫_{t₀}^{T} ∇·v(x_t, t) dt`,  `x_{t₀} = x`,
//!
//! solved as one system in `[x, ∫∇·v]`: adaptively, with an error control that sees both, or along a table
//! (`likelihood_table.rs`).
//!
//! Reference: Chen et al. 2018, arXiv 1806.07366, Eq. (8); Song et al. 2021, arXiv 2011.13456, Eq. (39).
//! Differs: error control, evaluations and outcome are those of each sample alone; the prior may be the exact
//! law at T. Random probes have a control variate, the flow of normal data: of a matrix process that turns, they would otherwise pay for what is known.

use candle_core::{DType, Tensor};
use sde_core::noise::BatchNoise;
use sde_core::oracle::Mixture;
use sde_core::{Converted, Field, LinearSde, Op, Prediction, apply_each};
use sde_solvers::adaptive::{Ode, Report};
use sde_solvers::{Adaptive, Chart, Divergence, Outcome, Table};

use crate::likelihood_table::along;
use crate::rows::Rows;
use crate::{Error, Result};

/// What tells the log density of points, or a number whose mean is not above it.
pub trait PointDensity {
    /// The log density of each row of `x`, or a bound of it.
    ///
    /// # Shapes
    /// `x` `[B, …]`; `noise` has one address for each row.
    ///
    /// # Errors
    /// For points that are not finite or do not fit `noise`, and whatever the field returns.
    fn log_density(&self, x: &Tensor, noise: &BatchNoise) -> Result<Vec<LogDensity>>;

    /// Whether the value is the density itself, not an estimate whose exponential would be biased.
    fn is_exact(&self) -> bool;

    /// Whether the value is a log probability of levels, not a log density.
    fn is_of_levels(&self) -> bool {
        false
    }
}

impl<D: PointDensity + ?Sized> PointDensity for Box<D> {
    fn log_density(&self, x: &Tensor, noise: &BatchNoise) -> Result<Vec<LogDensity>> {
        (**self).log_density(x, noise)
    }
    fn is_exact(&self) -> bool {
        (**self).is_exact()
    }
    fn is_of_levels(&self) -> bool {
        (**self).is_of_levels()
    }
}

/// The law taken for the state at the end of the flow.
#[derive(Debug, Clone, Copy)]
pub enum Prior<'a> {
    /// `N(0, P)`, P the covariance of the process's prior: what a sampler starts from.
    Standard,
    /// The law that data with this density really has at the end.
    Exact(&'a Mixture),
}

impl Prior<'_> {
    /// Its name in records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Exact(_) => "exact",
        }
    }

    /// The log density of each state at time `t`.
    pub(crate) fn log_density<'s>(
        &self,
        sde: &dyn LinearSde,
        t: f64,
        states: impl Iterator<Item = &'s [f64]>,
    ) -> sde_core::Result<Vec<f64>> {
        match self {
            Self::Standard => {
                let (covariance, precision) = (sde.prior(), sde.prior().inverse()?);
                let density = |x: &[f64]| {
                    let square: f64 = precision.apply_host(x)?.iter().zip(x).map(|(a, b)| a * b).sum();
                    let volume =
                        x.len() as f64 * std::f64::consts::TAU.ln() + covariance.log_abs_det(x.len());
                    Ok(-0.5 * (square + volume))
                };
                states.map(density).collect()
            }
            Self::Exact(data) => {
                let marginal = data.marginal(sde, t)?;
                states.map(|x| Ok(marginal.at(x)?.log_density)).collect()
            }
        }
    }
}

/// How the flow is solved.
#[derive(Debug, Clone, Copy)]
pub enum Integrator<'a> {
    /// With error control: tolerances and limits.
    Adaptive(Adaptive),
    /// On the grid of a table that runs from `start` to `end`, made by [`sde_solvers::upward`].
    Table(&'a Table),
}

impl From<Adaptive> for Integrator<'_> {
    fn from(solver: Adaptive) -> Self {
        Self::Adaptive(solver)
    }
}

impl<'a> From<&'a Table> for Integrator<'a> {
    fn from(table: &'a Table) -> Self {
        Self::Table(table)
    }
}

/// How a log density is computed: the flow, its ends and its solver.
#[derive(Clone, Copy)]
pub struct Likelihood<'a> {
    /// The process.
    pub sde: &'a dyn LinearSde,
    /// A prediction of it.
    pub field: &'a dyn Field,
    /// The law at the end.
    pub prior: Prior<'a>,
    /// How the divergence is measured.
    pub divergence: Divergence,
    /// What solves it.
    pub solver: Integrator<'a>,
    /// The variable an adaptive solver steps in.
    pub chart: Chart,
    /// t₀, the time whose density is told.
    pub start: f64,
    /// T, the time at which the prior is taken.
    pub end: f64,
}

/// The log density of one point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogDensity {
    /// In nats; none unless the solve finished.
    pub value: Option<f64>,
    /// The standard error of a value that is a mean of random ones.
    pub standard_error: Option<f64>,
    /// Evaluations of the velocity and its divergence.
    pub nfe: usize,
    /// How the solve ended.
    pub outcome: Outcome,
}

impl<'a> Likelihood<'a> {
    /// From the process's likelihood t₀ to its end, with the standard prior, in the process's natural chart.
    pub fn new(
        sde: &'a dyn LinearSde,
        field: &'a dyn Field,
        divergence: Divergence,
        solver: impl Into<Integrator<'a>>,
    ) -> Self {
        let span = sde.span();
        let chart = Chart::natural(sde);
        Self {
            sde,
            field,
            prior: Prior::Standard,
            divergence,
            solver: solver.into(),
            chart,
            start: span.likelihood,
            end: span.end,
        }
    }

    /// The log density of each row of `x`.
    ///
    /// # Shapes `x` `[B, …]`, of any type, on a device that has f64, in which it is solved (the field may
    /// live elsewhere); `noise` has one address for each row and is used by probes alone.
    ///
    /// # Errors Unless `start < end`; when the velocity does not exist at an end (a noise prediction where
    /// the signal is gone: set an earlier `end`), a point is not finite, or the field fails. A solve that
    /// does not arrive is not an error: its outcome says so.
    pub fn log_density(&self, x: &Tensor, noise: &BatchNoise) -> Result<Vec<LogDensity>> {
        if !(self.start < self.end && self.start.is_finite() && self.end.is_finite()) {
            let found = format!("start {}, end {}", self.start, self.end);
            return Err(Error::mismatch("times of a likelihood", "start < end, both finite", found));
        }
        for t in [self.start, self.end] {
            self.field.prediction().conversion(Prediction::Velocity, self.sde, t)?;
        }
        let points = checked_points(x, noise)?;
        let x = x.to_dtype(DType::F64)?;
        let probes = self.divergence.probes(noise, &x)?;
        match self.solver {
            Integrator::Adaptive(solver) => self.adaptive(&solver, &x, points.dim(), probes),
            Integrator::Table(table) => {
                let (end, integrals) = along(table, self, &x, &probes)?;
                let rows = end.flatten_from(1)?.to_vec2::<f64>()?;
                let priors = self.prior.log_density(self.sde, self.end, rows.iter().map(Vec::as_slice))?;
                let totals = priors.iter().zip(integrals).map(|(prior, integral)| prior + integral);
                Ok(totals.map(|total| LogDensity::new(total, table.nfe(), Outcome::Finished)).collect())
            }
        }
    }

    fn adaptive(
        &self,
        solver: &Adaptive,
        x: &Tensor,
        dim: usize,
        probes: Vec<Tensor>,
    ) -> Result<Vec<LogDensity>> {
        let flow = AugmentedFlow { likelihood: self, shape: &x.dims()[1..], probes };
        let integral = Tensor::zeros((x.dim(0)?, 1), DType::F64, x.device())?;
        let state = Tensor::cat(&[&x.flatten_from(1)?, &integral], 1)?;
        let (from, to) = (self.chart.of(self.sde, self.start), self.chart.of(self.sde, self.end));
        let solution = solver.integrate(&flow, &state, from, to)?;
        let rows = solution.y.to_vec2::<f64>()?;
        let priors = self.prior.log_density(self.sde, self.end, rows.iter().map(|row| &row[..dim]))?;
        let totals = rows.iter().zip(priors).map(|(row, prior)| prior + row[dim]);
        let told = |(total, report): (f64, &Report)| LogDensity::new(total, report.nfe, report.outcome);
        Ok(totals.zip(&solution.reports).map(told).collect())
    }
}

impl PointDensity for Likelihood<'_> {
    fn log_density(&self, x: &Tensor, noise: &BatchNoise) -> Result<Vec<LogDensity>> {
        Likelihood::log_density(self, x, noise)
    }

    fn is_exact(&self) -> bool {
        self.divergence == Divergence::Exact
    }
}

/// The points as host rows, with one address of noise for each.
pub(crate) fn checked_points(x: &Tensor, noise: &BatchNoise) -> Result<Rows> {
    let points = Rows::new(x, "points whose density is asked")?;
    if noise.samples.len() != points.len() {
        let expected = format!("{} addresses, one a point", points.len());
        return Err(Error::mismatch("noise of the points", expected, noise.samples.len()));
    }
    Ok(points)
}

impl LogDensity {
    pub(crate) fn new(total: f64, nfe: usize, outcome: Outcome) -> Self {
        let outcome = match outcome {
            Outcome::Finished if !total.is_finite() => Outcome::NonFinite,
            other => other,
        };
        Self { value: (outcome == Outcome::Finished).then_some(total), standard_error: None, nfe, outcome }
    }
}

/// What probes make of the divergence of the flow of normal data, `v = A u`, `A = (Ṡ Sᵀ + Ṙ Rᵀ)(S Sᵀ + R Rᵀ)⁻¹`, less what it is: the mean of `zᵀ A z − tr A` over
/// the probes, for each sample. It is 0 on average, near what the flow in question adds to its own divergence, and exists where the signal is gone.
fn excess(sde: &dyn LinearSde, times: &[f64], probes: &[Tensor]) -> sde_core::Result<Tensor> {
    let guide = |&t: &f64| {
        let (signal, factor) = (sde.signal(t).transpose(), sde.factor(t).transpose());
        let whole = signal.transpose().mul(&signal)?.add(&factor.transpose().mul(&factor)?)?;
        let rate = sde.signal_rate(t).mul(&signal)?.add(&sde.factor_rate(t).mul(&factor)?)?;
        rate.mul(&whole.inverse()?)
    };
    let guides = times.iter().map(guide).collect::<sde_core::Result<Vec<Op>>>()?;
    let like = probes.first().ok_or_else(|| sde_core::Error::Mismatch {
        what: "probes of a divergence",
        expected: "one or more".into(),
        found: "none".into(),
    })?;
    let (batch, dim) = (like.dim(0)?, like.elem_count() / like.dim(0)?.max(1));
    let mut total = Tensor::zeros(batch, like.dtype(), like.device())?;
    for probe in probes {
        total = (total + (probe * apply_each(&guides, probe)?)?.flatten_from(1)?.sum(1)?)?;
    }
    let traces: Vec<f64> = guides.iter().map(|guide| guide.trace(dim)).collect();
    let traces = Tensor::new(traces, like.device())?.to_dtype(like.dtype())?;
    Ok((total / probes.len() as f64)?.broadcast_sub(&traces)?)
}

/// The flow of `[x, ∫∇·v]`.
struct AugmentedFlow<'a> {
    likelihood: &'a Likelihood<'a>,
    /// The shape of one point.
    shape: &'a [usize],
    /// Of all points, `[B, shape…]` each.
    probes: Vec<Tensor>,
}

impl Ode for AugmentedFlow<'_> {
    fn rhs(&self, y: &Tensor, s: &[f64], samples: &[usize]) -> sde_core::Result<Tensor> {
        let Likelihood { sde, field, divergence, chart, start, end, .. } = *self.likelihood;
        let active: Vec<u32> = samples.iter().map(|&i| i as u32).collect();
        let active = Tensor::new(active, y.device())?;
        let probes: Vec<Tensor> =
            self.probes.iter().map(|p| p.index_select(&active, 0)).collect::<Result<_, _>>()?;
        let restricted = field.restrict(samples)?;
        let field = restricted.as_deref().unwrap_or(field);
        let dims: Vec<usize> = std::iter::once(samples.len()).chain(self.shape.iter().copied()).collect();
        let x = y.narrow(1, 0, y.dim(1)? - 1)?.contiguous()?.reshape(dims)?;
        // The way to the chart and back may round past an end, where a process need not exist.
        let times: Vec<f64> = s.iter().map(|&s| chart.time(sde, s).clamp(start, end)).collect();
        let velocity = Converted::new(field, sde, Prediction::Velocity);
        let (velocity, spread) = divergence.value_and_divergence(&velocity, &x, &times, &probes)?;
        let spread = match divergence {
            Divergence::Exact => spread,
            _ => (spread - excess(sde, &times, &probes)?)?,
        };
        let rate = Tensor::cat(&[velocity.flatten_from(1)?, spread.unsqueeze(1)?], 1)?;
        if chart == Chart::Time {
            return Ok(rate);
        }
        let stretch: Vec<f64> = times.iter().map(|&t| chart.stretch(sde, t)).collect();
        Ok(rate.broadcast_mul(&Tensor::new(stretch, y.device())?.unsqueeze(1)?)?)
    }
}
