//! Learning a forward process and its score together.
//!
//! The bound of `−log p(x₀)`, in which nothing that depends on the process is left out:
//!
//! `KL(q_T|0 ‖ N(0, I)) + ∫_ε^T ½ ḃ E‖s − ∇log q_t|0‖²_Q dt + E[−log p(x₀ | x_ε)]`
//!
//! with the decoder `N(Ψ⁻¹(x_ε + Σ s), Ψ⁻¹ Σ Ψ⁻ᵀ)`, so that `−log p(x₀ | x_ε) = ½ log |2π Σ_ε| − log |Ψ_ε| + ½‖ε̂ − ε‖²`. t is uniform in the clock
//! ½ log(e^b − 1); the decoder's error, which has the weight ½ there, is drawn as half a unit of the clock before ε. So one
//! evaluation a sample estimates the whole bound without bias.
//!
//! The same with the weight 1 on the error of the noise ("simple") does not determine the process: its minimum over λ is at
//! λ = ∞, where everything is noise from the start. It is here for processes whose ‖Λ‖_F is fixed.
//!
//! Reference: "A Flexible Diffusion Model", Eq. (14), (16), (17), section 4.2.
//! Differs: the paper trains with Eq. (16), whose constant depends on what is trained.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Stream, host_tensor};
use sde_core::{Model, Pass};
use sde_data::Batch;

use super::path::{PathPenalty, Times};
use super::{Loss, LossValue, Reduction, TimeLaw, Weighting};
use crate::fit::HELD_OUT_STEP;
use crate::forward::{Flow, Forward};
use crate::{Error, Result};

/// The clock that stands for the decoder's error.
const DECODER: f64 = 0.5;

/// The name that the penalty has in the log.
const PENALTY: &str = "path_penalty";

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Objective {
    /// The bound, cut at ε, over T.
    Bound { from: f64, to: f64 },
    /// The squared error of the noise.
    Simple(TimeLaw),
}

/// The joint loss of a network and a learned process.
#[derive(Clone)]
pub struct Flexible {
    forward: Arc<Forward>,
    objective: Objective,
    reduction: Reduction,
    penalty: Option<PathPenalty>,
    frozen_after: Option<u64>,
}

/// The time of a sample, and what its squared errors count.
#[derive(Debug, Clone, Copy)]
struct Place {
    t: f64,
    /// The factor of the whole.
    weight: f64,
    /// Whether the weights of the likelihood apply, which are 1 for the decoder.
    weighted: bool,
}

impl Flexible {
    /// The loss: the bound for [`Weighting::Likelihood`] over the times of a [`TimeLaw::ImportanceSampled`], in nats a dimension
    /// ([`Reduction::Mean`]) or in nats ([`Reduction::Sum`]); the error of the noise for [`Weighting::Simple`].
    ///
    /// # Errors
    /// [`Error::Config`] for other choices, for the simple weight where ‖Λ‖_F is not fixed, and for a penalty beside it where t
    /// is not uniform.
    pub fn new(
        forward: Arc<Forward>,
        time: TimeLaw,
        weighting: Weighting,
        reduction: Reduction,
        penalty: Option<PathPenalty>,
    ) -> Result<Self> {
        time.check(forward.clock())?;
        penalty.map_or(Ok(()), |penalty| penalty.check())?;
        let objective = match (weighting, time) {
            (Weighting::Likelihood, TimeLaw::ImportanceSampled { from, to }) => {
                if reduction == Reduction::HalfSum {
                    let expected = "\"mean\" (nats a dimension) or \"sum\" (nats) for the bound";
                    return Err(Error::config("reduction", expected, "\"half_sum\""));
                }
                Objective::Bound { from, to }
            }
            (Weighting::Likelihood, other) => {
                let expected = "\"importance_sampled\" for the bound of a learned process";
                return Err(Error::config("time.kind", expected, format!("{other:?}")));
            }
            (Weighting::Simple, _) if !forward.is_normalised() => {
                let expected = "\"likelihood\" (the bound) where ‖Λ‖_F is free, or process.family.normalise true: the simple loss is least at λ = ∞";
                return Err(Error::config("weighting.kind", expected, "\"simple\""));
            }
            (Weighting::Simple, time) => Objective::Simple(time),
            (other, _) => {
                let expected = "\"likelihood\" or \"simple\" for a learned process";
                return Err(Error::config("weighting.kind", expected, format!("{other:?}")));
            }
        };
        check_density(objective, penalty)?;
        Ok(Self { forward, objective, reduction, penalty, frozen_after: None })
    }

    /// The same loss, for which the process costs nothing from an update on: it is trained no more then, and has no gradient.
    pub fn frozen_after(self, updates: Option<u64>) -> Self {
        Self { frozen_after: updates, ..self }
    }

    /// The loss of each sample, its penalty included; [`Loss::loss`] is its mean. At the step of held-out data there is no penalty.
    ///
    /// # Shapes
    /// `[B]`.
    ///
    /// # Errors
    /// When batch and noise differ in size, the model's prediction is none that a learned process has, or the model fails.
    pub fn per_sample(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<Tensor> {
        match self.parts(model, batch, noise)? {
            (costs, None) => Ok(costs),
            (costs, Some(penalty)) => Ok((costs + penalty)?),
        }
    }

    /// The loss of each sample without the penalty, and the penalty, where there is one.
    fn parts(
        &self,
        model: &dyn Model,
        batch: &Batch,
        noise: &BatchNoise,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let places = self.places(noise);
        // Held-out data want no gradient, and no penalty: whatever is frozen, runs with and without one compare by their bound.
        let fixed = noise.step == HELD_OUT_STEP
            || self.frozen_after.is_some_and(|after| u64::from(noise.step) >= after);
        let dtype = batch.x.dtype();
        let flow = if fixed { self.forward.fixed_flow(dtype)? } else { self.forward.flow(dtype)? };
        let (costs, penalty) = self.costs(&flow, model, batch, noise, &places)?;
        let Objective::Bound { from, to } = self.objective else { return Ok((costs, penalty)) };
        let [start, end] = [from, to].map(|t| self.forward.integral(t));
        let data = batch.x.flatten_from(1)?;
        let ends = flow.ends(&data, start, end)?.to_device(costs.device())?;
        let ends = if self.reduction == Reduction::Mean { (ends / data.dim(1)? as f64)? } else { ends };
        Ok(((costs + ends.to_dtype(dtype)?)?, penalty))
    }

    fn places(&self, noise: &BatchNoise) -> Vec<Place> {
        let draw = |draws: &mut sde_core::noise::Draws| match self.objective {
            Objective::Simple(law) => {
                let drawn = law.draw(self.forward.clock(), draws);
                Place { t: drawn.t, weight: drawn.weight, weighted: false }
            }
            Objective::Bound { from, to } => {
                let [first, last] = self.forward.clocks(from, to);
                let weight = last - first + DECODER;
                let clock = first - DECODER + weight * draws.uniform();
                let t = if clock <= first { from } else { self.forward.time(clock).clamp(from, to) };
                Place { t, weight, weighted: clock > first }
            }
        };
        noise.draws(Stream::Time, 0).iter_mut().map(draw).collect()
    }

    /// The weighted squared errors of each sample, reduced, and the penalty of its path.
    fn costs(
        &self,
        flow: &Flow,
        model: &dyn Model,
        batch: &Batch,
        noise: &BatchNoise,
        places: &[Place],
    ) -> Result<(Tensor, Option<Tensor>)> {
        let data = batch.x.flatten_from(1)?;
        let eps = noise.tensor(
            Law::Normal,
            Stream::Diffusion,
            0,
            &data.dims()[1..],
            data.dtype(),
            data.device(),
        )?;
        let b: Vec<f64> = places.iter().map(|place| self.forward.integral(place.t)).collect();
        let at = flow.diffuse(&data, &eps, &b)?;
        let t: Vec<f64> = places.iter().map(|place| place.t).collect();
        let times = host_tensor(t.clone(), &[t.len()], data.dtype(), data.device())?;
        let pass =
            Pass { labels: batch.labels.as_ref(), augment: batch.augment.as_ref(), dropout: Some(noise) };
        let output = model.forward(&at.state.reshape(batch.x.dims())?, &times, pass)?.flatten_from(1)?;
        let squares = flow.error(model.prediction(), &output, &at)?.sqr()?;
        let squares = squares.broadcast_mul(&self.coefficients(flow, &b, places)?.to_dtype(data.dtype())?)?;
        let costs = self.reduction.apply(&squares)?;
        let Some(penalty) = self.penalty.filter(|_| flow.is_taped()) else { return Ok((costs, None)) };
        let rates: Vec<f64> = t.iter().map(|&t| self.forward.rate(t)).collect();
        let times = Times { t: &t, b: &b, rate: &rates };
        let penalty = penalty.of(flow, model, batch, &at, times, noise)?;
        Ok((costs, Some(self.penalty_weight(&t, &penalty)?)))
    }

    /// What the squared error of each entry counts: `[B, D]` or `[B, 1]`, f64 and on the tape.
    fn coefficients(&self, flow: &Flow, b: &[f64], places: &[Place]) -> Result<Tensor> {
        let scale: Vec<f64> = places.iter().map(|place| place.weight).collect();
        let weights = flow.weights(b)?;
        let scale = host_tensor(scale, &[b.len(), 1], DType::F64, weights.device())?;
        let plain = places.iter().map(|place| f64::from(u8::from(!place.weighted))).collect();
        let plain = host_tensor(plain, &[b.len(), 1], DType::F64, weights.device())?;
        // 1 where the decoder, or the simple weight, takes the place of the likelihood's.
        let mixed = (weights.broadcast_mul(&plain.affine(-1.0, 1.0)?)?.broadcast_add(&plain))?;
        Ok(mixed.broadcast_mul(&scale)?)
    }

    /// A penalty `∫ … dt` at times that are drawn: divided by their density.
    fn penalty_weight(&self, t: &[f64], penalty: &Tensor) -> Result<Tensor> {
        let inverse_density = |&t: &f64| match self.objective {
            Objective::Simple(TimeLaw::Uniform { from, to }) => to - from,
            // None of these has a penalty, see `check_density`.
            Objective::Simple(_) => 1.0,
            Objective::Bound { from, to } => {
                let [first, last] = self.forward.clocks(from, to);
                (last - first + DECODER) / self.forward.clock_rate(t)
            }
        };
        let weights = host_tensor(
            t.iter().map(inverse_density).collect(),
            &[t.len()],
            penalty.dtype(),
            penalty.device(),
        )?;
        Ok((penalty * weights)?)
    }
}

/// Refuses a penalty `∫ … dt` where t has a density that the simple loss is not divided by.
fn check_density(objective: Objective, penalty: Option<PathPenalty>) -> Result<()> {
    match (objective, penalty) {
        (Objective::Simple(time), Some(_)) if !matches!(time, TimeLaw::Uniform { .. }) => {
            let expected = "\"uniform\" where a simple loss has a penalty on paths (or take loss.path away)";
            Err(Error::config("time.kind", expected, format!("{time:?}")))
        }
        _ => Ok(()),
    }
}

impl Loss for Flexible {
    fn loss(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let (costs, penalty) = self.parts(model, batch, noise)?;
        let total = costs.mean_all()?;
        let Some(penalty) = penalty else { return Ok(LossValue::on_tape(total)) };
        let penalty = penalty.mean_all()?;
        // One transfer, beside the backward passes that the penalty has taken.
        let value = penalty.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar()?;
        Ok(LossValue { terms: vec![(PENALTY, value)], ..LossValue::on_tape((total + penalty)?) })
    }
}
