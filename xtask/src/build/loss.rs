//! The training loss, as configured.

use std::sync::Arc;

use sde_core::LinearSde;
use sde_train::loss::{Dsm, Reduction, TimeLaw, Weighting};
use serde::{Deserialize, Serialize};

/// Denoising score matching: weighting, law of the time, reduction.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// How errors at different times compare.
    pub weighting: Weighting,
    /// At which times the model is trained.
    pub time: TimeLaw,
    /// How the squared errors of a sample become one number.
    pub reduction: Reduction,
}

impl LossConfig {
    /// The loss for a process.
    pub fn build(&self, sde: Arc<dyn LinearSde>) -> sde_train::Result<Dsm> {
        Dsm::new(sde, self.time, self.weighting, self.reduction)
    }
}
