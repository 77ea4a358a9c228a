//! A normalising flow fitted to a target without samples of it, by the reverse divergence, and what it says about Z.
//!
//! ```text
//! x = T(z), z ~ N(0, I)        loss = E[log q(x) − log μ̂(x)] = KL(q ‖ μ) − log Z
//! −loss ≤ log Z        Ẑ = mean μ̂(x)/q(x), E[Ẑ] = Z
//! ```
//!
//! The gradient goes through x into the target by the target's own score: ∂log μ̂(T(z))/∂θ = ∇log μ̂ · ∂T/∂θ, exact and without a tape through μ̂.
//!
//! Reference: Rezende, Mohamed 2015, arXiv 1505.05770, Eq. (15); the weights: Müller et al. 2019, arXiv 1808.03856, section 5.

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::target::{Drawn, LogWeights, TargetSampler};
use sde_core::{Target, noise::host_tensor};
use sde_data::Batch;
use sde_nets::{CouplingFlow, FlowConfig, Mapped, Params, standard_normal_log};

use crate::clip::{clip, global_norm};
use crate::loss::LossValue;
use crate::{Adam, AdamConfig, Decay, Error, Gradients, Objective, Result, Schedule};

/// E[log q − log μ̂], with the flow that it trains.
pub struct ReverseDivergence<'a> {
    /// The flow, built on the parameters that are trained.
    pub flow: &'a CouplingFlow,
    /// μ̂.
    pub target: &'a dyn Target,
}

impl ReverseDivergence<'_> {
    /// log q(x) − log μ̂(x) of x = T(z), on the tape, `[B]`, and the points.
    fn gap(&self, z: &Tensor) -> Result<(Tensor, Tensor)> {
        let Mapped { points, log_determinant } = self.flow.forward(z)?;
        let at = points.detach().to_dtype(DType::F64)?.to_device(&Device::Cpu)?;
        let density = self.target.finite_log_density(&at)?;
        let here = |tensor: Tensor| tensor.to_dtype(points.dtype())?.to_device(points.device());
        // Zero, with the score as its derivative.
        let slope = ((&points - points.detach())? * here(density.score)?)?.sum(1)?;
        let log_target = (here(density.value)? + slope)?;
        Ok((((standard_normal_log(z)? - log_determinant)? - log_target)?, points))
    }

    /// log μ̂(x) − log q(x) of x = T(z), and the points: where there is no density, −∞.
    fn log_weights(&self, z: &Tensor) -> Result<(Vec<f64>, Tensor)> {
        let Mapped { points, log_determinant } = self.flow.forward(z)?;
        let points = points.detach().to_dtype(DType::F64)?.to_device(&Device::Cpu)?;
        let law = (standard_normal_log(z)? - log_determinant)?.detach().to_dtype(DType::F64)?;
        let (law, found) = (law.to_vec1::<f64>()?, self.target.log_density(&points)?.value.to_vec1::<f64>()?);
        let log = |(found, law): (f64, f64)| if found.is_nan() { f64::NEG_INFINITY } else { found - law };
        Ok((found.into_iter().zip(law).map(log).collect(), points))
    }

    fn noise(&self, noise: &BatchNoise, stream: Stream, dtype: DType, device: &Device) -> Result<Tensor> {
        Ok(noise.tensor(Law::Normal, stream, 0, &[self.flow.dim()], dtype, device)?)
    }
}

impl Objective for ReverseDivergence<'_> {
    /// Of the batch nothing is used but its number of examples, type and device.
    fn value(&self, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let z = self.noise(noise, Stream::Diffusion, batch.x.dtype(), batch.x.device())?;
        Ok(LossValue::on_tape(self.gap(&z)?.0.mean_all()?))
    }
}

/// A flow that is fitted anew in every run, in f64, and then drawn from with weights.
#[derive(Debug, Clone, PartialEq)]
pub struct VariationalFlow {
    /// The flow.
    pub flow: FlowConfig,
    /// The optimiser.
    pub optimiser: AdamConfig,
    /// Updates.
    pub steps: u64,
    /// Samples an update.
    pub batch: usize,
    /// How the learning rate falls.
    pub decay: Decay,
    /// The largest norm of a gradient.
    pub clip: f64,
}

impl VariationalFlow {
    fn fitted(&self, target: &dyn Target, noise: Noise) -> Result<CouplingFlow> {
        self.optimiser.check()?;
        if self.batch == 0 {
            return Err(Error::config("batch", "positive", 0));
        }
        if self.clip.is_nan() || self.clip <= 0.0 {
            return Err(Error::config("clip", "positive", self.clip));
        }
        let build = |b: &sde_nets::Builder| CouplingFlow::new(b, &self.flow, target.dim());
        let (flow, params) = Params::initialise(noise, DType::F64, &Device::Cpu, build)?;
        let mut adam = Adam::new(self.optimiser, &params)?;
        let schedule = Schedule { warmup_steps: 0.0, decay: self.decay };
        let empty = host_tensor(vec![0.0; self.batch], &[self.batch, 1], DType::F64, &Device::Cpu)?;
        let batch = Batch { x: empty, labels: None, augment: None };
        let objective = ReverseDivergence { flow: &flow, target };
        for step in 0..self.steps {
            let here = BatchNoise::new(noise, step as u32, 0..self.batch as u32);
            let store = sde_nets::backward(&objective.value(&batch, &here)?.total)?;
            let mut gradients = Gradients::new();
            for (name, var) in params.iter() {
                let gradient = store.get(var).ok_or_else(|| Error::NoGradient { name: name.to_owned() })?;
                gradients.insert(name.to_owned(), gradient.clone());
            }
            let norm = global_norm(&gradients)?;
            if !norm.is_finite() {
                let what = "the norm of the gradients".into();
                return Err(Error::NonFinite { what, step: step + 1, found: norm, checkpoint: None });
            }
            clip(&mut gradients, norm, self.clip)?;
            let rate = self.optimiser.lr * schedule.factor(step, self.steps);
            adam.update(&params, &gradients, step + 1, rate)?;
        }
        Ok(flow)
    }

    fn drawn(&self, target: &dyn Target, samples: usize, noise: Noise) -> Result<Drawn> {
        if samples == 0 || samples > u32::MAX as usize {
            return Err(Error::config("samples", format!("from 1 to {}", u32::MAX), samples));
        }
        let flow = self.fitted(target, noise)?;
        let objective = ReverseDivergence { flow: &flow, target };
        let here = BatchNoise::new(noise, 0, 0..samples as u32);
        let z = objective.noise(&here, Stream::Prior, DType::F64, &Device::Cpu)?;
        let (logs, points) = objective.log_weights(&z)?;
        let weights = LogWeights::new(logs)?;
        let bound = weights.logs().iter().sum::<f64>() / samples.max(1) as f64;
        Ok(Drawn {
            samples: points,
            log_normaliser: Some(weights.log_mean().value),
            bound: bound.is_finite().then_some(bound),
            weights: Some(weights),
            lowest_share: None,
            evaluations: self.steps * self.batch as u64 + samples as u64,
        })
    }
}

impl TargetSampler for VariationalFlow {
    fn name(&self) -> String {
        "vi-nf".into()
    }

    fn draw(&self, target: &dyn Target, samples: usize, noise: Noise) -> sde_core::Result<Drawn> {
        self.drawn(target, samples, noise).map_err(|error| match error {
            Error::Core(error) => error,
            other => sde_core::Error::model(other),
        })
    }
}
