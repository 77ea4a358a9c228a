//! Learning how uncertain ε is, by entry: the second output f of a model whose mean is frozen, regressed on what it is the conditional expectation of.
//!
//! `L = E_t E_{x₀, ε} (f(u_t, t) − y)²`, `y = (ε − ε̂)²/w` (NPR) or `y = (ε² − ε̂²)/√w` (SN), w = α²/(α² + σ²); [`SecondMoment`] has the two.
//!
//! Reference: Bao, Li, Sun, Zhu, Zhang 2022, arXiv 2206.07309, Eq. (9) and (12), section 4.3.
//! Differs: errors count relative to w or √w, so that f is of order one at every time; the minimiser is the same. Of SN, ε̂² is subtracted from the target
//! instead of from the result: f need not learn ε̂² again.

use std::sync::Arc;

use candle_core::Tensor;
use sde_core::noise::BatchNoise;
use sde_core::{LinearSde, Model, Op, Pass, Prediction, SecondMoment, apply_each, convert, required};
use sde_data::Batch;

use super::noised::Noised;
use super::{Loss, LossValue, Reduction, TimeLaw};
use crate::Result;

/// The loss of a second output.
#[derive(Clone)]
pub struct VarianceLoss {
    sde: Arc<dyn LinearSde>,
    second: SecondMoment,
    time: TimeLaw,
    reduction: Reduction,
}

impl VarianceLoss {
    /// The loss of a second output that is to mean `second`.
    ///
    /// # Errors
    /// [`crate::Error::Config`] when the time law asks for times that the process does not have; for processes that are not scalar.
    pub fn new(
        sde: Arc<dyn LinearSde>,
        second: SecondMoment,
        time: TimeLaw,
        reduction: Reduction,
    ) -> Result<Self> {
        time.check(sde.as_ref())?;
        second.scale(sde.as_ref(), sde.span().sampling)?;
        Ok(Self { sde, second, time, reduction })
    }

    /// The loss of each sample; [`Loss::loss`] is its mean.
    ///
    /// # Shapes
    /// `[B]`.
    ///
    /// # Errors
    /// When the model has no second output, or fails; when batch and noise differ in size.
    pub fn per_sample(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<Tensor> {
        let sde = self.sde.as_ref();
        let Noised { drawn, t, times, eps, state, .. } = Noised::new(sde, &self.time, &batch.x, noise)?;
        let pass =
            Pass { labels: batch.labels.as_ref(), augment: batch.augment.as_ref(), dropout: Some(noise) };
        let (first, second) = model.forward_with_second(&state, &times, pass)?;
        let second = required(second)?;
        // No gradient goes to the mean, whatever the model's own tensors are.
        let predicted = convert(sde, (model.prediction(), Prediction::Noise), &t, &state, &first.detach())?;
        let target = self.second.target(sde, &t, &eps, &predicted)?;
        let weights: Vec<Op> = drawn.iter().map(|d| Op::Scalar(d.weight.sqrt())).collect();
        let squares = apply_each(&weights, &(second - target)?)?.flatten_from(1)?.sqr()?;
        self.reduction.apply(&squares)
    }
}

impl Loss for VarianceLoss {
    fn loss(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let total = self.per_sample(model, batch, noise)?.mean_all()?;
        Ok(LossValue::on_tape(total))
    }
}
