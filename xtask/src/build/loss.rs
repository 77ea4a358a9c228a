//! The training loss, as configured.

use std::sync::Arc;

use anyhow::Result;
use sde_core::LinearSde;
use sde_core::oracle::Mixture;
use sde_nets::Params;
use sde_train::loss::{
    Cauchy, Dsm, Flexible, FokkerPlanck, FokkerPlanckConfig, Loss, PathPenalty, Reduction, ScoreFpe, TimeLaw,
    VarianceLoss, Weighting,
};
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
    /// The Fokker–Planck equation of the score as a penalty; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fokker_planck: Option<FokkerPlanckConfig>,
    /// That equation from the score at the smallest time, in the place of score matching; not if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cauchy: Option<CauchyConfig>,
}

/// A Cauchy problem, where the law of the data is known.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CauchyConfig {
    /// What the squared error of the initial noise counts.
    pub weight: f64,
}

impl LossConfig {
    /// The loss for a process.
    pub fn build(&self, sde: Arc<dyn LinearSde>) -> sde_train::Result<Dsm> {
        Dsm::new(sde, self.time, self.weighting, self.reduction)
    }

    /// Whether the tape has to keep gradients of gradients.
    pub fn needs_nested(&self) -> bool {
        self.fokker_planck.as_ref().is_some_and(FokkerPlanckConfig::needs_nested)
    }

    /// The loss of the network, or of the second output that is trained instead; `law` is that of the data, where it is known.
    pub fn of(
        &self,
        variance: Option<&VarianceConfig>,
        sde: Arc<dyn LinearSde>,
        law: Option<Mixture>,
    ) -> Result<Box<dyn Loss>> {
        if self.path.is_some() {
            let text = "loss.path: there is a process to be formed only where process.kind is \"learned\"";
            return Err(Failure::Config(text.into()).into());
        }
        let Some(variance) = variance else { return self.of_score(sde, law) };
        self.require_plain("there is a section [variance]")?;
        if self.weighting != Weighting::Simple {
            let text = "loss.weighting must be { kind = \"simple\" } where there is a section [variance]: its loss has a scale of its own";
            return Err(Failure::Config(text.into()).into());
        }
        Ok(Box::new(VarianceLoss::new(sde, variance.moment()?, self.time, self.reduction)?))
    }

    /// Score matching, with a penalty, or the Cauchy problem.
    fn of_score(&self, sde: Arc<dyn LinearSde>, law: Option<Mixture>) -> Result<Box<dyn Loss>> {
        let dsm = self.build(sde.clone())?;
        let refuse = |text: &str| Err(Failure::Config(text.into()).into());
        let penalty = self.fokker_planck.clone();
        let penalty =
            penalty.map(|penalty| FokkerPlanck::new(sde.clone(), self.time, penalty)).transpose()?;
        Ok(match (penalty, self.cauchy) {
            (None, None) => Box::new(dsm),
            (Some(penalty), None) => Box::new(ScoreFpe::new(dsm, penalty)),
            (None, Some(_)) => {
                return refuse("loss.cauchy needs its equation: add a section [loss.fokker_planck]");
            }
            (Some(penalty), Some(cauchy)) => {
                let Some(law) = law else {
                    return refuse(
                        "loss.cauchy needs data whose score is known: a synthetic set of Gaussians (two-modes, three-modes, eight-modes)",
                    );
                };
                Box::new(Cauchy::new(penalty, Arc::new(law.lift(sde.as_ref())?), cauchy.weight, dsm)?)
            }
        })
    }

    /// Refuses an equation of the score where there is none to be solved.
    fn require_plain(&self, place: &str) -> Result<()> {
        if self.fokker_planck.is_none() && self.cauchy.is_none() {
            return Ok(());
        }
        let text = format!(
            "loss.fokker_planck and loss.cauchy are for a score of a known process, not where {place}"
        );
        Err(Failure::Config(text).into())
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
        self.require_plain("process.kind is \"learned\"")?;
        // Which group a parameter belongs to goes by its whole name: a process is frozen when the last of them is.
        let names = params.iter().map(|(name, _)| name).filter(|name| name.starts_with(learned::PREFIX));
        let frozen_after = train.frozen_after(names);
        let loss = Flexible::new(forward, self.time, self.weighting, self.reduction, self.path)?;
        Ok(Box::new(loss.frozen_after(frozen_after)))
    }
}
