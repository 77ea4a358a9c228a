//! How a network is trained, apart from what is trained on what: the `train` table of a preset.

use std::collections::BTreeSet;

use sde_nets::Params;
use serde::{Deserialize, Serialize};

use crate::adam::AdamConfig;
use crate::checkpoint::Keep;
use crate::ema::EmaConfig;
use crate::group::{Group, Groups};
use crate::schedule::Schedule;
use crate::{Error, Result};

/// The held-out loss, measured with the same noise every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// How many updates lie between two measurements.
    pub every: u64,
    /// How many of the held-out examples are used, from the first on.
    pub examples: usize,
}

/// How a network is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The number of updates planned: the horizon of the schedule, wherever a call stops.
    pub steps: u64,
    /// The number of examples of an update.
    pub batch: usize,
    /// The number of examples on the tape at once; all of them if absent. It bounds the memory, and changes the
    /// result by rounding only.
    pub micro_batch: Option<usize>,
    /// The probability that an example's label is dropped, for networks with classes: 0.1 to 0.2 where samples are to be guided
    /// without a classifier; if absent, none is. The held-out loss is that of the labels.
    pub label_dropout: Option<f64>,
    /// The optimiser.
    pub optimiser: AdamConfig,
    /// The learning rate over time.
    pub schedule: Schedule,
    /// The largest norm of the gradients; no clipping if absent.
    pub clip: Option<f64>,
    /// Gradients: what ±∞ is replaced by, and nan by 0 (EDM has 1e5); if absent, a gradient that is not finite ends the
    /// training.
    pub replace_non_finite: Option<f64>,
    /// The averages of the weights.
    #[serde(default)]
    pub ema: Vec<EmaConfig>,
    /// Parameters that are trained otherwise than the rest; none if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// How many updates lie between two lines of the log.
    pub log_every: u64,
    /// How many updates lie between two checkpoints; the last update has one in any case.
    pub checkpoint_every: u64,
    /// How many updates lie between two sample sheets; none if absent.
    pub sample_every: Option<u64>,
    /// Which checkpoints stay.
    pub keep: Keep,
    /// The held-out loss; not measured if absent.
    pub held_out: Option<HeldOut>,
    /// Whether the log is also written as event files for TensorBoard, in the run's directory; not if absent.
    pub tensorboard: Option<bool>,
}

impl TrainConfig {
    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// [`Error::Config`] with the field.
    pub fn check(&self) -> Result<()> {
        // A step is a part of the address of noise, which has 32 bits for it; the last one is the held-out data's.
        let limit = u64::from(u32::MAX);
        let counts = [
            ("steps", self.steps, limit),
            ("batch", self.batch as u64, limit),
            ("micro_batch", self.micro_batch.unwrap_or(1) as u64, limit),
            ("log_every", self.log_every, u64::MAX),
            ("checkpoint_every", self.checkpoint_every, u64::MAX),
            ("sample_every", self.sample_every.unwrap_or(1), u64::MAX),
            ("held_out.every", self.held_out.map_or(1, |held_out| held_out.every), u64::MAX),
            ("held_out.examples", self.held_out.map_or(1, |held_out| held_out.examples as u64), limit),
        ];
        for (field, found, limit) in counts {
            if !(1..=limit).contains(&found) {
                return Err(Error::config(field, format!("a number from 1 to {limit}"), found));
            }
        }
        if let Some(probability) = self.label_dropout
            && !(probability > 0.0 && probability <= 1.0)
        {
            return Err(Error::config("label_dropout", "above 0, up to 1, or absent", probability));
        }
        if let Some(clip) = self.clip
            && !(clip > 0.0 && clip.is_finite())
        {
            return Err(Error::config("clip", "a positive norm", clip));
        }
        if let Some(bound) = self.replace_non_finite
            && !(bound >= 0.0 && bound.is_finite())
        {
            return Err(Error::config("replace_non_finite", "a number, 0 or more", bound));
        }
        let mut names = BTreeSet::new();
        for ema in &self.ema {
            ema.check()?;
            if !names.insert(&ema.name) {
                return Err(Error::config(
                    "ema.name",
                    "a name for each average",
                    format!("{:?} twice", ema.name),
                ));
            }
        }
        Groups(&self.groups).check()?;
        self.optimiser.check()?;
        self.schedule.check()?;
        self.keep.check()
    }

    /// Refuses a group that none of `params` belongs to.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check_groups(&self, params: &Params) -> Result<()> {
        Groups(&self.groups).check_names(params)
    }

    /// The number of updates after which all parameters of these names stay as they are, each by the group that it belongs to;
    /// none where one of them is trained to the end, or there are none.
    pub fn frozen_after<'n>(&self, names: impl Iterator<Item = &'n str>) -> Option<u64> {
        Groups(&self.groups).frozen_after(names)
    }

    /// The learning rate when `done` updates have been made.
    pub fn learning_rate(&self, done: u64) -> f64 {
        self.optimiser.lr * self.schedule.factor(done, self.steps)
    }
}
