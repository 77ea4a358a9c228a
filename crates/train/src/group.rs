//! Groups of parameters that are trained otherwise than the rest: slower, faster, or for a while only.
//!
//! From the update that freezes it on, a parameter has no gradient, no step and no moment that changes, and every average
//! of the weights holds the parameter itself: whatever else is trained from then on, is trained on exactly this value.
//!
//! Reference: "A Flexible Diffusion Model", section 4.2, the two stages of "mix" training.

use sde_nets::Params;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The parameters whose names begin in some way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// How the names begin, such as `forward.`; a name belongs to the first group that it fits.
    pub prefix: String,
    /// What the learning rate is multiplied by.
    pub rate: f64,
    /// The number of updates after which these parameters stay as they are; trained to the end if absent.
    pub freeze_after: Option<u64>,
}

/// All groups of a training.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups<'a>(pub &'a [Group]);

impl Groups<'_> {
    pub(crate) fn check(&self) -> Result<()> {
        for group in self.0 {
            if group.prefix.is_empty() {
                return Err(Error::config("groups.prefix", "the beginning of a name", "nothing"));
            }
            if !(group.rate >= 0.0 && group.rate.is_finite()) {
                return Err(Error::config("groups.rate", "a number, 0 or more", group.rate));
            }
        }
        Ok(())
    }

    /// Refuses a group that no parameter belongs to.
    pub(crate) fn check_names(&self, params: &Params) -> Result<()> {
        for group in self.0 {
            if !params.iter().any(|(name, _)| name.starts_with(&group.prefix)) {
                let found = format!("{:?}, with which no parameter begins", group.prefix);
                return Err(Error::config("groups.prefix", "the beginning of a parameter's name", found));
            }
        }
        Ok(())
    }

    /// The number of updates after which all of these parameters stay as they are; none where one is trained to the end, or
    /// there is no name.
    pub(crate) fn frozen_after<'n>(&self, names: impl Iterator<Item = &'n str>) -> Option<u64> {
        let each = names.map(|name| self.of(name).and_then(|group| group.freeze_after));
        each.collect::<Option<Vec<u64>>>()?.into_iter().max()
    }

    /// The first group that a name fits.
    fn of(&self, name: &str) -> Option<&Group> {
        self.0.iter().find(|group| name.starts_with(&group.prefix))
    }

    /// The factor of the learning rate of a parameter in the update after `done` updates; none where it is frozen.
    pub(crate) fn rate(&self, name: &str, done: u64) -> Option<f64> {
        match self.of(name) {
            None => Some(1.0),
            Some(group) if group.freeze_after.is_some_and(|after| done >= after) => None,
            Some(group) => Some(group.rate),
        }
    }
}
