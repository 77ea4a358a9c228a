//! A second output on the network of another run: which moment it learns, and whose network it stands on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sde_core::SecondMoment;
use sde_nets::Weights;
use sde_train::checkpoint;
use sde_train::hash::weights_hash;
use serde::{Deserialize, Serialize};

use super::sampler::unknown;
use crate::config::{Preset, Source};
use crate::exit::Failure;
use crate::run::{locate, weights_file};

/// The file in the run's directory that holds the frozen network.
const FROZEN: &str = "frozen.safetensors";

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
        let path = locate(Some(base)).with_context(|| format!("variance.base {}", base.display()))?;
        let found = Source::read(&path.join("config.toml"))?.score()?;
        let differs = |section: &str| {
            Failure::Config(format!(
                "variance.base {}: its section [{section}] is another than that of {}; take its values with --set, or another base",
                path.display(),
                preset.name
            ))
        };
        if found.process != preset.process {
            return Err(differs("process").into());
        }
        if found.net != preset.net {
            return Err(differs("net").into());
        }
        if found.variance.is_some() {
            let text = format!(
                "variance.base {}: this run is a second output itself; name its base",
                path.display()
            );
            return Err(Failure::Config(text).into());
        }
        let saved = checkpoint::latest(&path.join("checkpoints"))?.checkpoint.ok_or_else(|| {
            Failure::Usage(format!("variance.base {}: this run has no checkpoint yet", path.display()))
        })?;
        Ok(saved.weights(&weights_file(&found, None)?.1)?)
    }

    /// The frozen weights that the run at `path` keeps.
    pub fn kept_weights(&self, path: &Path) -> Result<Weights> {
        let file = path.join(FROZEN);
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let weights = Weights::from_safetensors(&bytes, &candle_core::Device::Cpu)
            .with_context(|| format!("{}", file.display()))?;
        if self.weights_sha256.as_deref() != Some(weights_hash(&weights)?.as_str()) {
            let text = format!("{}: not the weights that the run was started with", file.display());
            return Err(Failure::Data(text).into());
        }
        Ok(weights)
    }

    /// Whether the run at `path` has its copy of the frozen weights.
    pub fn is_kept(path: &Path) -> bool {
        path.join(FROZEN).is_file()
    }

    /// Keeps the frozen weights in the run at `path`, if they are not there.
    pub fn keep(path: &Path, weights: &Weights) -> Result<()> {
        let file = path.join(FROZEN);
        if file.exists() {
            return Ok(());
        }
        let aside = path.join(format!("{FROZEN}.tmp"));
        crate::output::write(&aside, &weights.to_safetensors()?)?;
        std::fs::rename(&aside, &file).with_context(|| format!("cannot rename to {}", file.display()))
    }
}
