//! DiffFlow: a drift that carries data to the prior and a score that leads back, learned together along simulated paths.
//!
//! With `x_k = x_{k−1} + f(x_{k−1}, t_{k−1}) Δ_k + g_{k−1} √Δ_k ξ_k` from data, and b_k the noise that the backward chain needs to go the same way,
//!
//! ```text
//! b_k = (x_{k−1} − x_k + [f − g_k² s](x_k, t_k) Δ_k) / (g_k √Δ_k)
//! −ELBO = E[−log N(x_N; 0, I) + ½ Σ_k (‖b_k‖² − ‖ξ_k‖²)] + D log(g_N / g_0)      nats
//! ```
//!
//! which bounds −log p of the backward chain's end, and differs from the training loss by a constant. It is a chain of the adjoint with the state
//! `(x_k, r_k)`, `r_k = x_{k−1} − x_k = −f Δ − g √Δ ξ`: the difference of two states that are near each other is never formed, and f is evaluated
//! N + 1 times, s N times.
//!
//! The grid is `t^κ` even between its ends, or drawn for each batch; the number of steps may grow during training.
//!
//! Reference: Zhang, Chen 2021, arXiv 2110.07579, Eq. (8)–(15), Algorithm 1, sections 3.3 and 3.4.
//! Differs: the constant is +D log(g_N / g_0); the exponent of the grid is 1/κ, so that steps grow towards the prior as the text says; the sum has
//! all N steps.

use candle_core::Tensor;
use sde_core::noise::{BatchNoise, Law, NormalSource, Stream, host_tensor};
use sde_core::{Model, NoiseRate, Pass, Prediction, TimeGrid};
use sde_data::Batch;
use serde::{Deserialize, Serialize};

use crate::adjoint::{Chain, Route, roll, trace};
use crate::fit::HELD_OUT_STEP;
use crate::loss::LossValue;
use crate::objective::Objective;
use crate::{Error, Result};

/// Steps of the chain from an update on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The first update; 0 in the first stage.
    pub from: u64,
    /// N.
    pub steps: usize,
}

/// How g goes from one end of time to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseLaw {
    /// Evenly.
    Linear,
    /// By even factors.
    Geometric,
}

/// g(t).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseConfig {
    /// Between the ends.
    pub law: NoiseLaw,
    /// g at the data.
    pub start: f64,
    /// g at the prior; the same for constant noise.
    pub end: f64,
}

/// The process of a DiffFlow: its times, its noise, its number of steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffFlowConfig {
    /// t₀, the time of the data.
    pub start: f64,
    /// T, the time of the prior.
    pub end: f64,
    /// κ, the power of t in which the grid is even.
    pub kappa: f64,
    /// Whether the inner times are drawn, once for each batch.
    pub drawn_grid: bool,
    /// g(t).
    pub noise: NoiseConfig,
    /// N over the training; the last stage is that of sampling.
    pub stages: Vec<Stage>,
    /// How gradients are found.
    pub route: Route,
}

impl DiffFlowConfig {
    /// Refuses what is no process.
    ///
    /// # Errors
    /// [`Error::Config`] with the key.
    pub fn check(&self) -> Result<()> {
        let refuse = |field, expected: &str, found: String| Err(Error::config(field, expected, found));
        if !(self.start >= 0.0 && self.start < self.end && self.end.is_finite()) {
            return refuse("start, end", "0 ≤ start < end", format!("{}, {}", self.start, self.end));
        }
        if self.stages.first().is_none_or(|stage| stage.from != 0) {
            return refuse("stages", "stages, the first from update 0", format!("{:?}", self.stages));
        }
        if let Some(pair) = self.stages.windows(2).find(|pair| pair[0].from >= pair[1].from) {
            return refuse("stages.from", "above that of the stage before", pair[1].from.to_string());
        }
        if let Some(stage) = self.stages.iter().find(|stage| !(1..=100_000).contains(&stage.steps)) {
            return refuse("stages.steps", "a number from 1 to 100000", stage.steps.to_string());
        }
        self.rate()?;
        self.grid(self.steps()).map(|_| ())
    }

    /// g(t).
    ///
    /// # Errors
    /// For strengths that are none.
    pub fn rate(&self) -> Result<NoiseRate> {
        let (ends, rates) = ([self.start, self.end], [self.noise.start, self.noise.end]);
        Ok(match self.noise.law {
            NoiseLaw::Linear => NoiseRate::linear(ends, rates)?,
            NoiseLaw::Geometric => NoiseRate::geometric(ends, rates)?,
        })
    }

    /// N of the last stage.
    pub fn steps(&self) -> usize {
        self.stages.last().map_or(1, |stage| stage.steps)
    }

    /// The fixed grid of `steps` steps, from T down to t₀.
    ///
    /// # Errors
    /// For an exponent that makes none.
    pub fn grid(&self, steps: usize) -> Result<TimeGrid> {
        Ok(TimeGrid::power(self.end, self.start, steps, 1.0 / self.kappa)?)
    }

    /// The grid of an update, the same for all samples of its batch; the fixed one of the last stage for held-out data.
    fn grid_of(&self, noise: &BatchNoise) -> Result<TimeGrid> {
        if noise.step == HELD_OUT_STEP {
            return self.grid(self.steps());
        }
        let stage = self.stages.iter().rev().find(|stage| stage.from <= u64::from(noise.step));
        let steps = stage.map_or(self.steps(), |stage| stage.steps);
        if !self.drawn_grid {
            return self.grid(steps);
        }
        let mut draws = noise.noise.draws(Stream::Time, noise.step, 0);
        Ok(TimeGrid::power_drawn(self.end, self.start, steps, 1.0 / self.kappa, &mut draws)?)
    }
}

/// The objective: a drift and a score on one process.
pub struct DiffFlow<D, S> {
    drift: D,
    score: S,
    config: DiffFlowConfig,
    rate: NoiseRate,
}

impl<D: Model, S: Model> DiffFlow<D, S> {
    /// The objective of `drift`, which predicts a velocity, and `score`. Both are given one time for all samples, `[1]`.
    ///
    /// # Errors
    /// [`Error::Config`] for a process that is none, or a network that predicts anything else.
    pub fn new(drift: D, score: S, config: DiffFlowConfig) -> Result<Self> {
        config.check()?;
        for (field, found, expected, name) in [
            ("drift.prediction", drift.prediction(), Prediction::Velocity, "\"velocity\""),
            ("score.prediction", score.prediction(), Prediction::Score, "\"score\""),
        ] {
            if found != expected {
                return Err(Error::config(field, name, format!("{found:?}")));
            }
        }
        let rate = config.rate()?;
        Ok(Self { drift, score, config, rate })
    }

    /// The process.
    pub fn config(&self) -> &DiffFlowConfig {
        &self.config
    }

    /// −ELBO of each sample in nats along `grid`, off the tape: unbiased, with one path for each.
    ///
    /// # Shapes
    /// `x` `[B, …]`; the bounds are `[B]`.
    ///
    /// # Errors
    /// Those of the networks.
    pub fn bound(&self, grid: &TimeGrid, x: &Tensor, noise: &dyn NormalSource) -> Result<Tensor> {
        Ok(roll(&self.chain(grid, noise, None), std::slice::from_ref(x))?.0)
    }

    /// The chain of a batch along `grid`; ξ_k is the noise of step k − 1 of `noise`, and dropout has the same masks at all steps.
    pub fn chain<'a>(
        &'a self,
        grid: &TimeGrid,
        noise: &'a dyn NormalSource,
        dropout: Option<&'a BatchNoise>,
    ) -> impl Chain + 'a {
        let times = grid.times().iter().rev().copied().collect();
        Path { flow: self, times, noise, pass: Pass { dropout, ..Pass::EVAL } }
    }
}

impl<D: Model, S: Model> Objective for DiffFlow<D, S> {
    /// The bound, which the training loss differs from by a constant.
    fn value(&self, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let (grid, simulated) = (self.config.grid_of(noise)?, Simulated(noise));
        let chain = self.chain(&grid, &simulated, Some(noise));
        trace(&chain, std::slice::from_ref(&batch.x), self.config.route)?.into_value()
    }

    fn held_out(&self, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let bound = self.bound(&self.config.grid_of(noise)?, &batch.x, &Simulated(noise))?;
        Ok(LossValue::on_tape(bound.mean_all()?))
    }
}

/// The noise of the paths of an update: ξ_{k+1} of a sample is drawn at site k of the stream of diffusion.
struct Simulated<'a>(&'a BatchNoise);

impl NormalSource for Simulated<'_> {
    fn normal(&self, step: usize, like: &Tensor) -> sde_core::Result<Tensor> {
        let shape = &like.dims()[1..];
        self.0.tensor(Law::Normal, Stream::Diffusion, step as u32, shape, like.dtype(), like.device())
    }
}

/// The forward chain of a batch. A state is `[x_k, r_k]`, the first `[x_0]`.
struct Path<'a, D, S> {
    flow: &'a DiffFlow<D, S>,
    /// Increasing.
    times: Vec<f64>,
    noise: &'a dyn NormalSource,
    pass: Pass<'a>,
}

impl<D: Model, S: Model> Path<'_, D, S> {
    /// Δ_{k+1}, from t_k.
    fn step_from(&self, k: usize) -> f64 {
        self.times[k + 1] - self.times[k]
    }

    fn at(&self, model: &dyn Model, k: usize, x: &Tensor) -> Result<Tensor> {
        let t = host_tensor(vec![self.times[k]], &[1], x.dtype(), x.device())?;
        Ok(model.forward(x, &t, self.pass)?)
    }

    /// ½ ‖b_k‖², with f at x_k.
    fn backward_noise(&self, k: usize, x: &Tensor, drift: &Tensor, back: &Tensor) -> Result<Tensor> {
        let (step, g) = (self.step_from(k - 1), self.flow.rate.at(self.times[k]));
        let score = self.at(&self.flow.score, k, x)?;
        let led = (drift - (score * (g * g))?)?;
        let b = ((back + (led * step)?)? * (1.0 / (g * step.sqrt())))?;
        half_square(&b)
    }
}

/// ½ ‖x‖² of each sample.
fn half_square(x: &Tensor) -> Result<Tensor> {
    Ok((x.sqr()?.flatten_from(1)?.sum(1)? * 0.5)?)
}

impl<D: Model, S: Model> Chain for Path<'_, D, S> {
    fn steps(&self) -> usize {
        self.times.len() - 1
    }

    fn step(&self, k: usize, state: &[Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
        let x = &state[0];
        let drift = self.at(&self.flow.drift, k, x)?;
        let (step, g) = (self.step_from(k), self.flow.rate.at(self.times[k]));
        let xi = self.noise.normal(k, x)?;
        let mut cost = half_square(&xi)?.neg()?;
        if let Some(back) = state.get(1) {
            cost = (cost + self.backward_noise(k, x, &drift, back)?)?;
        }
        let back = ((drift * -step)? - (xi * (g * step.sqrt()))?)?;
        Ok((vec![(x - &back)?, back], cost))
    }

    fn terminal(&self, state: &[Tensor]) -> Result<Tensor> {
        let (x, n) = (&state[0], self.steps());
        let drift = self.at(&self.flow.drift, n, x)?;
        let dim = x.dims()[1..].iter().product::<usize>() as f64;
        let rate = |k: usize| self.flow.rate.at(self.times[k]);
        let constant = dim * (0.5 * std::f64::consts::TAU.ln() + (rate(n) / rate(0)).ln());
        let cost = (half_square(x)? + self.backward_noise(n, x, &drift, &state[1])?)?;
        Ok((cost + constant)?)
    }
}
