//! The training loss, as configured.

use std::sync::Arc;

use anyhow::Result;
use sde_core::LinearSde;
use sde_nets::Params;
use sde_train::loss::{Dsm, Flexible, Loss, PathPenalty, Reduction, TimeLaw, VarianceLoss, Weighting};
use sde_train::{Forward, TrainConfig};
use serde::{Deserialize, Serialize};

use super::{VarianceConfig, learned};
use crate::exit::Failure;

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
    /// Penalties on the paths of a learned process; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathPenalty>,
}

impl LossConfig {
    /// The loss for a process.
    pub fn build(&self, sde: Arc<dyn LinearSde>) -> sde_train::Result<Dsm> {
        Dsm::new(sde, self.time, self.weighting, self.reduction)
    }

    /// The loss of the network, or of the second output that is trained instead.
    pub fn of(&self, variance: Option<&VarianceConfig>, sde: Arc<dyn LinearSde>) -> Result<Box<dyn Loss>> {
        if self.path.is_some() {
            let text = "loss.path: there is a process to be formed only where process.kind is \"learned\"";
            return Err(Failure::Config(text.into()).into());
        }
        let Some(variance) = variance else { return Ok(Box::new(self.build(sde)?)) };
        if self.weighting != Weighting::Simple {
            let text = "loss.weighting must be { kind = \"simple\" } where there is a section [variance]: its loss has a scale of its own";
            return Err(Failure::Config(text.into()).into());
        }
        Ok(Box::new(VarianceLoss::new(sde, variance.moment()?, self.time, self.reduction)?))
    }

    /// The loss of a network and its process together.
    pub fn learned(
        &self,
        variance: Option<&VarianceConfig>,
        forward: Arc<Forward>,
        (params, train): (&Params, &TrainConfig),
    ) -> Result<Box<dyn Loss>> {
        if variance.is_some() {
            let text = "variance: a second output needs a process that treats all coordinates alike, not a learned one";
            return Err(Failure::Config(text.into()).into());
        }
        // Which group a parameter belongs to goes by its whole name: a process is frozen when the last of them is.
        let names = params.iter().map(|(name, _)| name).filter(|name| name.starts_with(learned::PREFIX));
        let frozen_after = train.frozen_after(names);
        let loss = Flexible::new(forward, self.time, self.weighting, self.reduction, self.path)?;
        Ok(Box::new(loss.frozen_after(frozen_after)))
    }
}
