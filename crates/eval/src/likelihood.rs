//! Log density by the probability flow: the instantaneous change of variables along `dx/dt = v(x, t)`,
//!
//! `log p_{t₀}(x) = log p_T(x_T) + ∫_{t₀}^{T} ∇·v(x_t, t) dt`,  `x_{t₀} = x`,
//!
//! solved as one system in `[x, ∫∇·v]`, whose error control sees both.
//!
//! Reference: Chen et al. 2018, arXiv 1806.07366, Eq. (8); Song et al. 2021, arXiv 2011.13456, Eq. (39).
//! Differs: error control, evaluations and outcome are those of each sample alone; the prior may be the exact
//! law at T.

use candle_core::{DType, Tensor};
use sde_core::noise::BatchNoise;
use sde_core::oracle::Mixture;
use sde_core::{Converted, Field, LinearSde, Prediction};
use sde_solvers::adaptive::{Ode, Report};
use sde_solvers::{Adaptive, Chart, Divergence, Outcome};

use crate::rows::Rows;
use crate::{Error, Result};

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
    fn log_density<'s>(
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
    /// Tolerances and limits.
    pub solver: Adaptive,
    /// The variable the solver steps in.
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
        solver: Adaptive,
    ) -> Self {
        let span = sde.span();
        let chart = Chart::natural(sde);
        Self {
            sde,
            field,
            prior: Prior::Standard,
            divergence,
            solver,
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
        let points = Rows::new(x, "points whose density is asked")?;
        if noise.samples.len() != points.len() {
            let expected = format!("{} addresses, one a point", points.len());
            return Err(Error::mismatch("noise of the points", expected, noise.samples.len()));
        }
        let x = x.to_dtype(DType::F64)?;
        let (shape, probes) = (&x.dims()[1..], self.divergence.probes(noise, &x)?);
        let flow = AugmentedFlow { likelihood: self, shape, probes };
        let integral = Tensor::zeros((points.len(), 1), DType::F64, x.device())?;
        let state = Tensor::cat(&[&x.flatten_from(1)?, &integral], 1)?;
        let (from, to) = (self.chart.of(self.sde, self.start), self.chart.of(self.sde, self.end));
        let solution = self.solver.integrate(&flow, &state, from, to)?;
        let rows = solution.y.to_vec2::<f64>()?;
        let ends = rows.iter().map(|row| &row[..points.dim()]);
        let priors = self.prior.log_density(self.sde, self.end, ends)?;
        let totals = rows.iter().zip(priors).map(|(row, prior)| prior + row[points.dim()]);
        Ok(totals.zip(&solution.reports).map(|(total, report)| LogDensity::new(total, report)).collect())
    }
}

impl LogDensity {
    fn new(total: f64, report: &Report) -> Self {
        let outcome = match report.outcome {
            Outcome::Finished if !total.is_finite() => Outcome::NonFinite,
            other => other,
        };
        Self { value: (outcome == Outcome::Finished).then_some(total), nfe: report.nfe, outcome }
    }
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
        let rate = Tensor::cat(&[velocity.flatten_from(1)?, spread.unsqueeze(1)?], 1)?;
        if chart == Chart::Time {
            return Ok(rate);
        }
        let stretch: Vec<f64> = times.iter().map(|&t| chart.stretch(sde, t)).collect();
        Ok(rate.broadcast_mul(&Tensor::new(stretch, y.device())?.unsqueeze(1)?)?)
    }
}
