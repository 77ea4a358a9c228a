//! Path integral samplers: a control that steers a diffusion from the origin to a target, trained by what its paths cost.
//!
//! There is no data: what a training goes through are starts at the origin, a batch of them.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use ndarray::Array2;
use sde_core::noise::Noise;
use sde_core::target::{Bridge, TargetSampler};
use sde_data::{Picture, Points};
use sde_nets::{ControlConfig, ControlNet, Params, Weights, count_parameters};
use sde_solvers::PathIntegral;
use sde_train::adjoint::Route;
use sde_train::{PathCost, State, TrainConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Facts, Method, Parts, Running, of_run, sampled_weights, tells_its_preset};
use crate::output::Output;
use crate::run::{Saved, locate};
use crate::target::{self, Chosen, TargetConfig};

/// The key `method` of its presets.
pub const NAME: &str = "path-integral";
/// How many points a picture shows while training, its cells along a side, and pixels of a cell.
const CLOUD: (usize, usize, usize) = (4096, 160, 3);
/// Paths that are simulated at a time; changes nothing but memory.
pub const CHUNK: usize = 4096;

/// The diffusion that is steered.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeConfig {
    /// N.
    pub steps: usize,
    /// T.
    pub horizon: f64,
    /// g; without control the end is N(0, g² T I).
    pub noise: f64,
    /// Entries of the target's score are kept within ± this.
    pub clip: f64,
}

/// A preset.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PathIntegralPreset {
    /// `path-integral`.
    pub method: String,
    /// Its name, which is also its file's.
    pub name: String,
    /// One line: what it is and where its numbers are from.
    pub about: String,
    /// How gradients along paths are found.
    pub route: Route,
    /// What is to be sampled.
    pub target: TargetConfig,
    /// The diffusion.
    pub process: BridgeConfig,
    /// The control.
    pub net: ControlConfig,
    /// How it is trained; a batch is so many paths.
    pub train: TrainConfig,
}

impl PathIntegralPreset {
    /// The diffusion, checked.
    pub fn bridge(&self) -> Result<Bridge> {
        let BridgeConfig { steps, horizon, noise, clip } = self.process;
        let bridge = Bridge { steps, horizon, noise, clip };
        bridge.check()?;
        Ok(bridge)
    }

    fn sampler(&self, weights: &Weights, dim: usize, device: &Device) -> Result<PathIntegral<ControlNet>> {
        let horizon = self.process.horizon;
        let control = weights.freeze(DType::F32, device, |b| ControlNet::new(b, &self.net, dim, horizon))?;
        let name = if self.net.gradient { "pis-grad" } else { "pis-nn" };
        Ok(PathIntegral::new(name, self.bridge()?, control, CHUNK)?)
    }
}

/// A trained sampler, what it was trained for, and what it is.
pub struct Opened {
    /// The sampler.
    pub sampler: Box<dyn TargetSampler>,
    /// Its configuration.
    pub preset: PathIntegralPreset,
    /// What a record says of it.
    pub origin: Value,
}

/// Opens a run at its latest checkpoint that verifies.
///
/// # Errors
/// Where there is no such run, or it is of another method.
pub fn open(run: &Path, device: &Device, output: Output) -> Result<Opened> {
    let path = locate(Some(run))?;
    let preset = preset_of(&path)?;
    let saved = Saved::latest(&path, &preset.train, None, output)?;
    let dim = target::find(&preset.target)?.target.dim();
    let sampler = preset
        .sampler(&saved.weights, dim, device)
        .with_context(|| format!("{}: the weights do not fit the configured control", path.display()))?;
    let mut origin = saved.origin(&path, &preset.name)?;
    origin["seed"] = json!(saved.seed());
    Ok(Opened { sampler: Box::new(sampler), preset, origin })
}

/// What a run was trained for.
///
/// # Errors
/// As [`open`].
pub fn target_of(run: &Path) -> Result<TargetConfig> {
    Ok(preset_of(&locate(Some(run))?)?.target)
}

fn preset_of(path: &Path) -> Result<PathIntegralPreset> {
    of_run(path, NAME, "path integral sampler; `train pis-mixture` makes one")
}

/// A preset as a method.
pub struct PathIntegralMethod(pub PathIntegralPreset);

impl Method for PathIntegralMethod {
    tells_its_preset!(0);

    fn check(&self) -> Result<()> {
        self.0.train.check()?;
        self.0.bridge().map(|_| ())
    }

    fn build(&self, seed: u64, device: &Device, _: Output) -> Result<Parts> {
        let preset = &self.0;
        let Chosen { target, .. } = target::find(&preset.target)?;
        let (dim, horizon) = (target.dim(), preset.process.horizon);
        let (control, params) = Params::initialise(Noise::new(seed), DType::F32, device, |b| {
            ControlNet::new(b, &preset.net, dim, horizon)
        })?;
        preset.train.check_groups(&params)?;
        let starts = Points::new(Array2::<f64>::zeros((preset.train.batch, dim)).view())?;
        let data = std::sync::Arc::new(starts);
        let held_out = preset.train.held_out.map(|_| data.clone() as _);
        let objective =
            PathCost { control, bridge: preset.bridge()?, target: target.into(), route: preset.route };
        Ok(Parts { data, held_out, objective: Box::new(objective), params, classes: None })
    }

    fn sheet(&self, state: &State, running: &Running<'_>) -> Result<()> {
        let Chosen { target, window: Some(window), .. } = target::find(&self.0.target)? else {
            return Ok(());
        };
        let weights = sampled_weights(state)?;
        let (count, side, zoom) = CLOUD;
        let sampler = self.0.sampler(&weights, target.dim(), running.device)?;
        let drawn = sampler.draw(target.as_ref(), count, Noise::new(running.seed))?;
        let points = Array2::from_shape_vec((count, 2), drawn.samples.flatten_all()?.to_vec1::<f64>()?)?;
        Ok(Picture::cloud(points.view(), window, window, side, zoom)?.save(&running.sheet(state))?)
    }

    fn facts(&self, _: Output) -> Result<Facts> {
        let dim = target::dimension(&self.0.target)?;
        let horizon = self.0.process.horizon;
        let parameters = count_parameters(|b| ControlNet::new(b, &self.0.net, dim, horizon))?;
        let line = format!("of a control in {dim} dimensions");
        Ok(Facts { parameters, line, record: vec![("dimensions", json!(dim))] })
    }
}
