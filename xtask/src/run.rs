//! A finished or running run, opened for use: its preset, and its weights as a network without a tape.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use sde_core::{LinearSde, MixedScore, Model, ModelField, ModelMoments, state_shape};
use sde_data::{Encoding, Range};
use sde_nets::{Builder, SecondHead, Weights};
use sde_train::checkpoint::{self, Checkpoint};
use sde_train::hash::weights_hash;
use sde_train::{TrainConfig, WEIGHTS, ema_file, newest_run};
use serde_json::{Value, json};

use crate::build::learned;
use crate::cli::Opening;
use crate::config::{Preset, Source};
use crate::device;
use crate::exit::Failure;
use crate::method::diffflow::{self, DiffFlowPreset, Diffusion};
use crate::output::Output;
use crate::provenance;

/// Where runs are.
pub const ROOT: &str = "checkpoints";

/// A network.
pub type Network = Box<dyn Model + Send + Sync>;

/// The network of a preset, on states for data of `shape`; with `frozen` weights a second output on that network.
pub fn build_network(
    preset: &Preset,
    b: &Builder,
    shape: &[usize],
    frozen: Option<&Weights>,
) -> sde_nets::Result<Network> {
    let shape = preset.process.state_shape(shape)?;
    let network: Network = match frozen {
        Some(frozen) => Box::new(SecondHead::new(b, &preset.net, frozen, &shape)?),
        None => preset.net.build(b, &shape)?,
    };
    Ok(match preset.mixed_score {
        Some(variance) => Box::new(MixedScore::new(network, Arc::from(preset.process.build()?), variance)?),
        None => network,
    })
}

/// A run, its weights chosen and loaded.
pub struct Run {
    /// Its directory.
    pub path: PathBuf,
    /// Its configuration.
    pub preset: Preset,
    /// The seed it was trained with.
    pub seed: u64,
    /// The shape of one sample.
    pub shape: Vec<usize>,
    /// What the values of the data are.
    pub encoding: Encoding,
    /// The process.
    pub sde: Arc<dyn LinearSde>,
    /// The device the network is on.
    pub device: Device,
    /// Drift and score, of a run that has them; its network is then the velocity of their flow.
    pub diffusion: Option<Diffusion>,
    network: Network,
    origin: Value,
}

/// The directory a command means: the one named, or the newest.
pub fn locate(name: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = name {
        let under_root = Path::new(ROOT).join(path);
        for candidate in [path, &under_root] {
            if candidate.join("config.toml").is_file() {
                return Ok(candidate.to_owned());
            }
        }
        let text =
            format!("{}: no run is there (a run has a config.toml); runs are under {ROOT}/", path.display());
        return Err(Failure::Usage(text).into());
    }
    let root = Path::new(ROOT);
    let newest = if root.is_dir() { newest_run(root)? } else { None };
    newest.ok_or_else(|| {
        Failure::Usage(format!("there is no run under {ROOT}/ yet: train one, or name one")).into()
    })
}

/// The directory of a run and its configuration; `edit` changes settings before `sets` do.
fn source(name: Option<&Path>, sets: &[String], edit: impl Fn(&mut Source)) -> Result<(PathBuf, Source)> {
    let path = locate(name)?;
    let mut source = Source::read(&path.join("config.toml"))?;
    edit(&mut source);
    sets.iter().try_for_each(|set| source.set(set))?;
    Ok((path, source))
}

/// Which file of a checkpoint a name of weights stands for; by default the first average.
pub fn weights_file(train: &TrainConfig, name: Option<&str>) -> Result<(String, String)> {
    let averages: Vec<&str> = train.ema.iter().map(|ema| ema.name.as_str()).collect();
    match name {
        Some("raw") => Ok(("raw".into(), WEIGHTS.into())),
        None => {
            Ok(averages.first().map_or(("raw".into(), WEIGHTS.into()), |n| (format!("ema {n}"), ema_file(n))))
        }
        Some(name) if averages.contains(&name) => Ok((format!("ema {name}"), ema_file(name))),
        Some(name) => {
            let text = format!(
                "--weights {name}: this run has raw{}",
                averages.iter().map(|n| format!(", {n}")).collect::<String>()
            );
            Err(Failure::Usage(text).into())
        }
    }
}

/// The weights of a run at its latest checkpoint that verifies.
pub struct Saved {
    /// Which of its weights they are.
    pub label: String,
    /// The weights.
    pub weights: Weights,
    /// What else the checkpoint holds.
    pub checkpoint: Checkpoint,
}

impl Saved {
    /// Reads them; `name` is as of [`weights_file`].
    ///
    /// # Errors
    /// Where there is no checkpoint that verifies, or no such weights.
    pub fn latest(path: &Path, train: &TrainConfig, name: Option<&str>, output: Output) -> Result<Self> {
        let latest = checkpoint::latest(&path.join("checkpoints"))?;
        for (skipped, why) in &latest.skipped {
            output.say(format!("passing over {}: {why}", skipped.display()));
        }
        let checkpoint = latest
            .checkpoint
            .ok_or_else(|| Failure::Usage(format!("{}: this run has no checkpoint yet", path.display())))?;
        let (label, file) = weights_file(train, name)?;
        let weights = checkpoint.weights(&file)?;
        Ok(Self { label, weights, checkpoint })
    }

    /// The seed that the run was trained with.
    pub fn seed(&self) -> u64 {
        self.checkpoint.manifest().origin.seed
    }

    /// What records of the run begin with.
    pub fn origin(&self, path: &Path, preset: &str) -> Result<Value> {
        Ok(json!({
            "run": path.display().to_string(),
            "preset": preset,
            "step": self.checkpoint.manifest().step,
            "weights": self.label,
            "weights_sha256": weights_hash(&self.weights)?,
        }))
    }
}

impl Run {
    /// Opens the run named, or the newest, as a command line says; `edit` changes settings before `--set` does.
    pub fn of_command(
        name: Option<&Path>,
        opening: &Opening,
        edit: impl Fn(&mut Source),
        output: Output,
    ) -> Result<Self> {
        let device = device::select(&opening.device.name, output)?;
        Self::open(name, opening.weights.as_deref(), &opening.sets, edit, &device, output)
    }

    /// The same, also of a run whose network is the velocity of a flow: for a command that asks for no score.
    pub fn of_flow_command(
        name: Option<&Path>,
        opening: &Opening,
        edit: impl Fn(&mut Source),
        output: Output,
    ) -> Result<Self> {
        let device = device::select(&opening.device.name, output)?;
        let source = source(name, &opening.sets, edit)?;
        match source.1.method() {
            Some(diffflow::NAME) => {
                let flow: DiffFlowPreset = source.1.parse()?;
                Self::latest(
                    source.0,
                    flow.as_score()?,
                    Some(flow),
                    opening.weights.as_deref(),
                    &device,
                    output,
                )
            }
            _ => Self::latest(source.0, source.1.score()?, None, opening.weights.as_deref(), &device, output),
        }
    }

    /// Opens a run at its latest checkpoint that verifies.
    pub fn open(
        name: Option<&Path>,
        weights: Option<&str>,
        sets: &[String],
        edit: impl Fn(&mut Source),
        device: &Device,
        output: Output,
    ) -> Result<Self> {
        let (path, source) = source(name, sets, edit)?;
        Self::latest(path, source.score()?, None, weights, device, output)
    }

    /// The run of a directory at its latest checkpoint that verifies.
    fn latest(
        path: PathBuf,
        preset: Preset,
        flow: Option<DiffFlowPreset>,
        weights: Option<&str>,
        device: &Device,
        output: Output,
    ) -> Result<Self> {
        let saved = Saved::latest(&path, &preset.train, weights, output)?;
        let facts = preset.data.facts(output)?;
        let origin = saved.origin(&path, &preset.name)?;
        let step = saved.checkpoint.manifest().step;
        output.say(format!("{}: step {step}, {} weights", path.display(), saved.label));
        let (seed, tensors) = (saved.seed(), &saved.weights);
        match flow {
            Some(flow) => flow.open(path, facts, tensors, seed, device, origin),
            None => Self::of_weights(path, preset, facts, tensors, seed, device, origin),
        }
    }

    /// A run whose network is the velocity of the flow of `diffusion`, carried by `sde`.
    pub fn of_flow(
        path: PathBuf,
        mut preset: Preset,
        (shape, encoding): (Vec<usize>, Encoding),
        (sde, network, diffusion): (Arc<dyn LinearSde>, Network, Diffusion),
        (seed, origin): (u64, Value),
        device: &Device,
    ) -> Result<Self> {
        preset.sampler.resolve(&preset.process)?;
        let (device, diffusion) = (device.clone(), Some(diffusion));
        Ok(Self { path, preset, seed, shape, encoding, sde, device, diffusion, network, origin })
    }

    /// A run around given weights, with shape and encoding of its data.
    pub fn of_weights(
        path: PathBuf,
        mut preset: Preset,
        (shape, encoding): (Vec<usize>, Encoding),
        weights: &Weights,
        seed: u64,
        device: &Device,
        origin: Value,
    ) -> Result<Self> {
        preset.sampler.resolve(&preset.process)?;
        let frozen = preset.variance.as_ref().map(|variance| variance.kept_weights(&path)).transpose()?;
        let (network, forward) = weights
            .freeze(DType::F32, device, |b| {
                let network = build_network(&preset, b, &shape, frozen.as_ref())?;
                Ok((network, learned::forward(&preset.process, b, &shape)?))
            })
            .with_context(|| format!("{}: the weights do not fit the configured network", path.display()))?;
        let (sde, network) = learned::frozen(&preset.process, forward.as_deref(), network)?;
        let (device, diffusion) = (device.clone(), None);
        Ok(Self { path, preset, seed, shape, encoding, sde, device, diffusion, network, origin })
    }

    /// The range and the number of levels of images; none for points.
    pub fn image_levels(&self) -> Option<(Range, u32)> {
        match self.encoding {
            Encoding::Continuous => None,
            Encoding::Quantised { levels, range } | Encoding::Dequantised { levels, range } => {
                Some((range, levels))
            }
        }
    }

    /// The shape of one state: that of a sample, with the groups that are no data.
    pub fn state_shape(&self) -> sde_core::Result<Vec<usize>> {
        state_shape(self.sde.as_ref(), &self.shape)
    }

    /// The network as a sampler sees it.
    pub fn field(&self) -> ModelField<&Network> {
        ModelField::new(&self.network, DType::F32, &self.device)
    }

    /// Mean and variance of the noise as a sampler of learned variances sees them, of a run with a second output.
    pub fn moments(&self) -> Result<ModelMoments<'_, &Network>> {
        let variance = self.preset.variance.as_ref().ok_or_else(|| {
            Failure::Usage(format!(
                "{}: this run has no second output; train one on it: train a preset with a section [variance], such as digits-npr, --set variance.base={0}",
                self.path.display()
            ))
        })?;
        Ok(ModelMoments::new(&self.network, variance.moment()?, self.sde.as_ref(), DType::F32, &self.device))
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The number of classes of a conditional network.
    pub fn classes(&self) -> Option<usize> {
        self.preset.net.classes()
    }

    /// What every record of this run begins with.
    pub fn record(&self) -> Value {
        let mut record = self.origin.clone();
        record["code_revision"] = json!(provenance::revision());
        record["device"] = json!(provenance::device_name(&self.device));
        record
    }
}
