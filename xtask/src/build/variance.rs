//! A second output on the network of another run: which moment it learns, and whose network it stands on.

use std::path::{Path, PathBuf};

use anyhow::Result;
use sde_core::SecondMoment;
use sde_nets::Weights;
use serde::{Deserialize, Serialize};

use super::kept::{Base, Kept};
use super::sampler::unknown;
use crate::config::Preset;
use crate::exit::Failure;

/// The file in the run's directory that holds the frozen network.
const FROZEN: Kept = Kept("frozen.safetensors");

/// What a second output learns, on what.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct VarianceConfig {
    /// `npr`, the noise prediction residual, or `sn`, the squared noise.
    pub second: String,
    /// The run whose network is frozen: its first average, at its latest checkpoint. A preset leaves it to `--set variance.base=RUN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// The hash of the frozen weights, filled in when the run starts; the run has a copy of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights_sha256: Option<String>,
}

impl VarianceConfig {
    /// What the second output means.
    pub fn moment(&self) -> Result<SecondMoment, Failure> {
        match self.second.as_str() {
            "npr" => Ok(SecondMoment::Residual),
            "sn" => Ok(SecondMoment::Square),
            other => Err(unknown("variance.second", other, &["npr", "sn"])),
        }
    }

    /// The weights of the run named as base, which must have the process and the network of `preset`.
    pub fn base_weights(&self, preset: &Preset) -> Result<Weights> {
        let base = self.base.as_ref().ok_or_else(|| {
            Failure::Config(format!(
                "{}: variance.base is missing: name the run whose network is frozen, --set variance.base=RUN",
                preset.name
            ))
        })?;
        let (found, weights) = Base { key: "variance.base", run: base }.weights(preset, None)?;
        if found.variance.is_some() {
            let text = format!(
                "variance.base {}: this run is a second output itself; name its base",
                base.display()
            );
            return Err(Failure::Config(text).into());
        }
        Ok(weights)
    }

    /// The frozen weights that the run at `path` keeps.
    pub fn kept_weights(&self, path: &Path) -> Result<Weights> {
        FROZEN.read(path, self.weights_sha256.as_deref())
    }

    /// Whether the run at `path` has its copy of the frozen weights.
    pub fn is_kept(path: &Path) -> bool {
        FROZEN.is_there(path)
    }

    /// Keeps the frozen weights in the run at `path`, if they are not there.
    pub fn keep(path: &Path, weights: &Weights) -> Result<()> {
        FROZEN.keep(path, weights)
    }
}
