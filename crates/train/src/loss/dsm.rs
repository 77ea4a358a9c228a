//! Denoising score matching: with `u_t = S_t x₀ + R_t ε`, the error of what the model predicts at `(u_t, t)`,
//! weighted.
//!
//! `L = E_t E_{x₀, ε} ‖W_t B_t (p̂(u_t, t) − p(x₀, ε))‖²`, with t from a [`TimeLaw`] and `W B` from a [`Weighting`].
//! Any linear process and any prediction: the target is the prediction's own value at (x₀, ε).
//!
//! Reference: Vincent 2011, "A connection between score matching and denoising autoencoders"; Song et al. 2021, arXiv
//! 2011.13456, Eq. (7); Zhang 2023 (thesis), Eq. (6.9).

use std::sync::Arc;

use candle_core::{D, Tensor};
use sde_core::noise::BatchNoise;
use sde_core::{LinearSde, Model, Op, Pass, Prediction, apply_each};
use sde_data::Batch;
use serde::{Deserialize, Serialize};

use super::noised::Noised;
use super::{DrawnTime, Loss, LossValue, TimeLaw, Weighting};
use crate::Result;

/// How the squared errors of one sample become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their mean.
    Mean,
    /// Their sum, as for EDM.
    Sum,
    /// Half their sum, as in a log likelihood.
    HalfSum,
}

impl Reduction {
    /// `[B, D]` to `[B]`.
    pub(super) fn apply(self, squares: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Mean => squares.mean(D::Minus1)?,
            Self::Sum => squares.sum(D::Minus1)?,
            Self::HalfSum => (squares.sum(D::Minus1)? * 0.5)?,
        })
    }
}

/// The denoising score matching loss of a process.
#[derive(Clone)]
pub struct Dsm {
    sde: Arc<dyn LinearSde>,
    time: TimeLaw,
    weighting: Weighting,
    reduction: Reduction,
}

impl Dsm {
    /// The loss with these choices.
    ///
    /// # Errors
    /// [`crate::Error::Config`] when the time law asks for times that the process does not have, or the weighting is given
    /// constants that are not positive.
    pub fn new(
        sde: Arc<dyn LinearSde>,
        time: TimeLaw,
        weighting: Weighting,
        reduction: Reduction,
    ) -> Result<Self> {
        time.check(sde.as_ref())?;
        weighting.check()?;
        Ok(Self { sde, time, weighting, reduction })
    }

    /// How the squared errors of a sample become one number.
    pub(super) fn reduction(&self) -> Reduction {
        self.reduction
    }

    /// The loss of each sample; [`Loss::loss`] is its mean.
    ///
    /// # Shapes
    /// `[B]`.
    ///
    /// # Errors
    /// When batch and noise differ in size, a weight does not exist at a time drawn, or the model fails.
    pub fn per_sample(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<Tensor> {
        let Noised { drawn, t, times, data, eps, state } =
            Noised::new(self.sde.as_ref(), &self.time, &batch.x, noise)?;
        let pass =
            Pass { labels: batch.labels.as_ref(), augment: batch.augment.as_ref(), dropout: Some(noise) };
        let predicted = model.forward(&state, &times, pass)?;
        let error = (predicted - self.target(model.prediction(), &t, &data, &eps)?)?;
        self.cost(model.prediction(), &drawn, &error)
    }

    /// What a perfect knowledge of (x₀, ε) would predict.
    fn target(&self, prediction: Prediction, t: &[f64], data: &Tensor, eps: &Tensor) -> Result<Tensor> {
        let parts = t.iter().map(|&t| Ok(prediction.of_data_and_noise(self.sde.as_ref(), t)?));
        let (of_data, of_noise): (Vec<Op>, Vec<Op>) = parts.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let absent = |ops: &[Op]| ops.iter().all(|op| *op == Op::ZERO);
        match (absent(&of_data), absent(&of_noise)) {
            (true, _) => Ok(apply_each(&of_noise, eps)?),
            (_, true) => Ok(apply_each(&of_data, data)?),
            _ => Ok((apply_each(&of_data, data)? + apply_each(&of_noise, eps)?)?),
        }
    }

    /// `‖M e‖²`, reduced, times the weight of the time: `[B]`.
    fn cost(&self, prediction: Prediction, drawn: &[DrawnTime], error: &Tensor) -> Result<Tensor> {
        let weigh = |d: &DrawnTime| {
            Ok(self.weighting.operator(prediction, self.sde.as_ref(), d.t)?.scale(d.weight.sqrt()))
        };
        let ops = drawn.iter().map(weigh).collect::<Result<Vec<Op>>>()?;
        let trivial = ops.iter().all(|op| *op == Op::IDENTITY);
        let error = if trivial { error.clone() } else { apply_each(&ops, error)? };
        let squares = error.flatten_from(1)?.sqr()?;
        self.reduction.apply(&squares)
    }
}

impl Loss for Dsm {
    fn loss(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let total = self.per_sample(model, batch, noise)?.mean_all()?;
        Ok(LossValue::on_tape(total))
    }
}
