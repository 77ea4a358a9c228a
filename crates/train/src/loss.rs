//! What is minimised: a scalar that is the mean over the samples of a batch.

mod dsm;
mod flexible;
mod noised;
mod path;
mod score_fpe;
mod step_dsm;
mod time_law;
mod variance;
mod weighting;

pub use dsm::{Dsm, Reduction};
pub use flexible::Flexible;
pub use path::{PathPenalty, Times};
pub use score_fpe::{
    Cauchy, Estimator, FokkerPlanck, FokkerPlanckConfig, Penalty, Points, RateStep, Route, ScoreFpe,
    TimeDifference, TimeWeight,
};
pub use step_dsm::StepDsm;
pub use time_law::{DrawnTime, TimeLaw};
pub use variance::VarianceLoss;
pub use weighting::Weighting;

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use sde_core::Model;
use sde_core::noise::BatchNoise;
use sde_data::Batch;

use crate::Result;

/// The value of a loss on a batch.
#[derive(Debug)]
pub struct LossValue {
    /// The mean over the samples, a scalar on the tape.
    pub total: Tensor,
    /// Parts worth logging, by name; reading them costs a transfer from the device, so a loss without parts has none.
    pub terms: Vec<(&'static str, f64)>,
    /// Its gradients, where they were found otherwise than on one tape; else they are those of `total`.
    pub gradients: Option<GradStore>,
}

impl LossValue {
    /// A value on the tape, without parts.
    pub fn on_tape(total: Tensor) -> Self {
        Self { total, terms: Vec::new(), gradients: None }
    }
}

/// A training objective.
pub trait Loss {
    /// The loss of `model` on a batch.
    ///
    /// All randomness comes from `noise`, addressed by sample, so that the mean over a batch is the weighted mean
    /// over its parts.
    ///
    /// # Shapes
    /// `batch.x` `[B, …]`, on the device and of the type of the model's parameters; `noise` has B samples.
    fn loss(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<LossValue>;
}
