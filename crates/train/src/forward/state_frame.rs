//! A network whose noise and v are those of the symmetric root of Σ, seen as one of the process's own factor R.
//!
//! Along the flow of a process that turns, R turns, too: `R = Σ^{1/2} E`, E orthogonal, and the noise whose value stays constant is `Eᵀ` times
//! the one that points from the mean to the state. The latter is what a network is trained to predict, since it needs to know nothing of the
//! rotation; samplers take the former. `v = a ε − σ x₀` turns with the noise; data and score do not depend on R. A
//! second output, a moment of each entry of the noise, has no such view: a diagonal matrix that is turned is diagonal no more.

use std::sync::Arc;

use candle_core::Tensor;
use sde_core::{Error, LinearSde, Model, Op, Pass, Prediction, Result, apply_each, operators_at};

/// A network of the state's frame on a process.
pub struct StateFrame<M> {
    model: M,
    sde: Arc<dyn LinearSde>,
}

impl<M: Model> StateFrame<M> {
    /// `model`, whose noise and v are those of the symmetric root of Σ, as a network of `sde`.
    pub fn new(model: M, sde: Arc<dyn LinearSde>) -> Self {
        Self { model, sde }
    }

    /// `R⁻¹ Σ^{1/2}` at each time.
    fn turns(&self, t: &Tensor) -> Result<Vec<Op>> {
        operators_at(t, |t| self.sde.factor(t).inverse()?.mul(&self.sde.covariance(t).sqrt()?))
    }

    fn seen(&self, t: &Tensor, output: Tensor) -> Result<Tensor> {
        match self.model.prediction() {
            Prediction::Noise | Prediction::V => apply_each(&self.turns(t)?, &output),
            Prediction::Data | Prediction::Score | Prediction::Velocity => Ok(output),
        }
    }
}

impl<M: Model> Model for StateFrame<M> {
    fn prediction(&self) -> Prediction {
        self.model.prediction()
    }

    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        self.seen(t, self.model.forward(x, t, pass)?)
    }

    /// As [`Model::forward`], for models without a second output.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a model that has one: its entries are moments along axes that E turns into others.
    fn forward_with_second(
        &self,
        x: &Tensor,
        t: &Tensor,
        pass: Pass<'_>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        match self.model.forward_with_second(x, t, pass)? {
            (output, None) => Ok((self.seen(t, output)?, None)),
            (_, Some(_)) => Err(Error::Mismatch {
                what: "network of a process that turns",
                expected:
                    "one without a second output, or a process of the kind \"noise\", which does not turn"
                        .into(),
                found: "a network with a second output".into(),
            }),
        }
    }
}
