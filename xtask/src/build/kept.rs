//! Weights of another run that a run keeps a copy of, so that it stands alone and is resumed with what it was started with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sde_nets::Weights;
use sde_train::checkpoint;
use sde_train::hash::weights_hash;

use crate::config::{Preset, Source};
use crate::exit::Failure;
use crate::run::{locate, weights_file};

/// Where the weights come from: what names the run in a preset, and the run.
pub struct Base<'a> {
    /// The key.
    pub key: &'static str,
    /// The run.
    pub run: &'a Path,
}

impl Base<'_> {
    /// The configuration of the run, and its weights by a name, or else the first average, at its latest checkpoint. It must have the
    /// process and the network of `preset`.
    pub fn weights(&self, preset: &Preset, name: Option<&str>) -> Result<(Preset, Weights)> {
        let path = locate(Some(self.run)).with_context(|| format!("{} {}", self.key, self.run.display()))?;
        let found = Source::read(&path.join("config.toml"))?.score()?;
        let differs = |section: &str| {
            Failure::Config(format!(
                "{} {}: its section [{section}] is another than that of {}; take its values with --set, or another run",
                self.key,
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
        let saved = checkpoint::latest(&path.join("checkpoints"))?.checkpoint.ok_or_else(|| {
            Failure::Usage(format!("{} {}: this run has no checkpoint yet", self.key, path.display()))
        })?;
        let weights = saved.weights(&weights_file(&found.train, name)?.1)?;
        Ok((found, weights))
    }
}

/// A copy of weights in the directory of a run.
#[derive(Debug, Clone, Copy)]
pub struct Kept(pub &'static str);

impl Kept {
    fn file(self, run: &Path) -> PathBuf {
        run.join(self.0)
    }

    /// Whether the run has its copy.
    pub fn is_there(self, run: &Path) -> bool {
        self.file(run).is_file()
    }

    /// The copy, which must have the hash that the run was started with.
    pub fn read(self, run: &Path, sha256: Option<&str>) -> Result<Weights> {
        let file = self.file(run);
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let weights = Weights::from_safetensors(&bytes, &candle_core::Device::Cpu)
            .with_context(|| format!("{}", file.display()))?;
        if sha256 != Some(weights_hash(&weights)?.as_str()) {
            let text = format!("{}: not the weights that the run was started with", file.display());
            return Err(Failure::Data(text).into());
        }
        Ok(weights)
    }

    /// Makes the copy, if it is not there.
    pub fn keep(self, run: &Path, weights: &Weights) -> Result<()> {
        let file = self.file(run);
        if file.exists() {
            return Ok(());
        }
        let aside = run.join(format!("{}.tmp", self.0));
        crate::output::write(&aside, &weights.to_safetensors()?)?;
        std::fs::rename(&aside, &file).with_context(|| format!("cannot rename to {}", file.display()))
    }
}
