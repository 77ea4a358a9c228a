//! The score's equation as a Cauchy problem: from the score at the smallest time, which is known, and no score at any later one.
//!
//! `J = E_t E_x w_t α D⁻ᵐ λ ‖ϵ[s]‖ᵐ + c E ‖s(x, t₀) − s₀(x)‖² `, with collocation points x_t of the forward process. The equation
//! with an initial score has one solution, so J = 0 means that s is the score at all times.
//!
//! The error at t₀ is that of the noise, `Rᵀ(s − s₀)`, of order one whatever t₀.
//!
//! Reference: Lai et al. 2022, arXiv 2210.04296, Eq. (20), (21), section 6.1, Proposition 4.5.
//! Differs: both terms are squared, with weights of their own (the paper's are not readable).

use std::sync::Arc;

use candle_core::Tensor;
use sde_core::noise::{BatchNoise, Law, Stream, host_tensor};
use sde_core::oracle::Mixture;
use sde_core::{Field, LinearSde, Model, OracleField, Pass, Prediction, convert, lift};
use sde_data::Batch;
use sde_nets::derivatives::per_sample;

use super::{FokkerPlanck, with_penalty};
use crate::Result;
use crate::fit::HELD_OUT_STEP;
use crate::loss::{Dsm, Loss, LossValue};

/// The noise of the points at t₀, in the stream of diffusion: another one than of the collocation points.
const START: u32 = 1;

/// The loss of a Cauchy problem.
#[derive(Clone)]
pub struct Cauchy {
    equation: FokkerPlanck,
    law: Arc<Mixture>,
    weight: f64,
    measured: Dsm,
}

impl Cauchy {
    /// The residual of `equation`, and `weight` times the squared error of the noise at the process's smallest time, where `law`, in the
    /// states of the process, knows the score. Held-out data are measured by `measured`, which is not trained.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a weight that is none, and an equation whose α is 0.
    pub fn new(equation: FokkerPlanck, law: Arc<Mixture>, weight: f64, measured: Dsm) -> Result<Self> {
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(crate::Error::config("loss.cauchy.weight", "a positive number", weight));
        }
        if equation.config.alpha == 0.0 {
            return Err(crate::Error::config("loss.fokker_planck.alpha", "above 0 for a Cauchy problem", 0));
        }
        Ok(Self { equation, law, weight, measured })
    }

    /// `‖Rᵀ(s − s₀)‖²` at t₀, of each sample.
    fn start(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<Tensor> {
        let sde: &dyn LinearSde = self.equation.sde.as_ref();
        let t = sde.span().likelihood;
        let data = lift(sde, &batch.x)?;
        let (dims, dtype, device) = (&data.dims()[1..], data.dtype(), data.device());
        let eps = noise.tensor(Law::Normal, Stream::Diffusion, START, dims, dtype, device)?;
        let x = (sde.signal(t).apply(&data)? + sde.factor(t).apply(&eps)?)?;
        let times = host_tensor(vec![t; x.dim(0)?], &[x.dim(0)?], dtype, device)?;
        let pass = Pass { labels: batch.labels.as_ref(), augment: batch.augment.as_ref(), dropout: None };
        let value = model.forward(&x, &times, pass)?;
        let found = convert(sde, (model.prediction(), Prediction::Noise), &[t], &x, &value)?;
        let wide = x.to_dtype(candle_core::DType::F64)?;
        let known = OracleField::noise(self.law.as_ref(), sde).eval(&wide, &[t])?.to_dtype(dtype)?;
        Ok(per_sample(&(found - known)?.sqr()?)?)
    }
}

impl Loss for Cauchy {
    fn loss(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        if noise.step == HELD_OUT_STEP {
            return self.measured.loss(model, batch, noise);
        }
        let start = (self.start(model, batch, noise)?.mean_all()? * self.weight)?;
        let penalty = self.equation.per_sample(model, batch, noise)?.mean_all()?;
        with_penalty(start, &penalty)
    }
}
