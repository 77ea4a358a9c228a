//! A run that starts from the weights of another one: fine-tuning.

use std::path::{Path, PathBuf};

use anyhow::Result;
use sde_nets::Weights;
use sde_train::hash::weights_hash;
use serde::{Deserialize, Serialize};

use super::kept::{Base, Kept};
use crate::config::Preset;
use crate::exit::Failure;

/// The copy that the run keeps.
const START: Kept = Kept("start.safetensors");

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StartConfig {
    /// The run.
    pub run: PathBuf,
    /// Which of its weights: `raw`, or the name of an average; the first average if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Their hash, filled in when the run starts; the run has a copy of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights_sha256: Option<String>,
}

impl StartConfig {
    /// The weights of a new run, or those that `existing` keeps, and their hash in the preset.
    pub fn resolve(preset: &mut Preset, existing: Option<&Path>) -> Result<Option<Weights>> {
        let Some(start) = preset.start.clone() else { return Ok(None) };
        if let Some(path) = existing.filter(|path| START.is_there(path)) {
            return START.read(path, start.weights_sha256.as_deref()).map(Some);
        }
        let base = Base { key: "start.run", run: &start.run };
        let (_, weights) = base.weights(preset, start.weights.as_deref())?;
        let hash = weights_hash(&weights)?;
        if start.weights_sha256.as_ref().is_some_and(|started| *started != hash) {
            let text = "start.run: its weights are not those that the run was started with; start a new run";
            return Err(Failure::Config(text.into()).into());
        }
        preset.start = Some(Self { weights_sha256: Some(hash), ..start });
        Ok(Some(weights))
    }

    /// Keeps the weights in the run at `path`.
    pub fn keep(path: &Path, weights: &Weights) -> Result<()> {
        START.keep(path, weights)
    }
}
