//! What [`fit`](fn@crate::fit) minimises: a value of a batch, whatever networks it belongs to.
//!
//! A score model with a [`Loss`] is one ([`Scored`]). What trains two networks, or one that predicts nothing, owns them and
//! implements [`Objective`] itself; and where it has a better way to its gradients than one tape, it brings them along.

use sde_core::noise::BatchNoise;
use sde_core::{Model, Pass, Prediction};
use sde_data::Batch;

use candle_core::Tensor;

use crate::Result;
use crate::loss::{Loss, LossValue};

/// A training objective, with the networks that it trains.
pub trait Objective {
    /// Its value on a batch, the mean over the samples.
    ///
    /// All randomness comes from `noise`, addressed by sample, so that the mean over a batch is the weighted mean
    /// over its parts.
    ///
    /// # Shapes
    /// `batch.x` `[B, …]`, on the device and of the type of the parameters; `noise` has B samples.
    fn value(&self, batch: &Batch, noise: &BatchNoise) -> Result<LossValue>;

    /// Its value on held-out data, where there is no dropout.
    fn held_out(&self, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        self.value(batch, noise)
    }
}

/// A score model and its loss.
pub struct Scored<'a> {
    /// The network, built on the parameters that are trained.
    pub model: &'a dyn Model,
    /// What it is trained on.
    pub loss: &'a dyn Loss,
}

impl Objective for Scored<'_> {
    fn value(&self, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        self.loss.loss(self.model, batch, noise)
    }

    fn held_out(&self, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        self.loss.loss(&WithoutDropout(self.model), batch, noise)
    }
}

/// A model with dropout off: what is measured on held-out data.
struct WithoutDropout<'a>(&'a dyn Model);

impl Model for WithoutDropout<'_> {
    fn prediction(&self) -> Prediction {
        self.0.prediction()
    }
    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> sde_core::Result<Tensor> {
        self.0.forward(x, t, Pass { dropout: None, ..pass })
    }
    fn forward_with_second(
        &self,
        x: &Tensor,
        t: &Tensor,
        pass: Pass<'_>,
    ) -> sde_core::Result<(Tensor, Option<Tensor>)> {
        self.0.forward_with_second(x, t, Pass { dropout: None, ..pass })
    }
}
