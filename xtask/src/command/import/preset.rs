//! What the files do not tell: a run is data, process, loss, training and sampler, too.
//!
//! A folder of diffusers tells network and chain, a checkpoint of score_sde neither, our own file everything. A preset
//! adds the rest; `--process` puts another process in its place, where the network's times can be told in that one's:
//!
//! ```text
//!              ddpm, t = 1 … N     vp and subvp, t in (0, 1]
//! diffusers    τ = t − 1           τ = 1000 t − 1, vp alone: the chain is its discretisation
//! score-sde    τ = t − 1           τ = 999 t
//! ```

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use sde_nets::pretrained::diffusers::{Folder, Schedule};
use sde_nets::pretrained::pickle::Value;
use sde_nets::pretrained::score_sde::{self, Output as Sign};
use sde_nets::pretrained::{Moments, Pretrained, single_file};
use sde_nets::{NetConfig, TimeFeatures, UnetConfig, Weights};
use sde_train::loss::TimeLaw;

use super::found::Found;
use crate::build::{ProcessConfig, sampler};
use crate::cli::Import;
use crate::config::{Preset, Source, names};
use crate::exit::Failure;
use crate::output::Output;

/// The chain of most networks of diffusers for small images.
const DIFFUSERS: &str = "cifar10-ddpm";

/// Weights, and the configuration that they are to run with.
pub struct Imported {
    pub preset: Preset,
    pub sample_shape: Vec<usize>,
    pub weights: Weights,
    pub average: Option<Weights>,
    pub moments: Option<Moments>,
    pub step: u64,
    /// What the source knows of its own history.
    pub provenance: BTreeMap<String, String>,
}

impl Imported {
    /// Reads the source.
    pub fn read(args: &Import, found: &Found, output: Output) -> Result<Self> {
        match found {
            Found::Diffusers(folder, _) => diffusers(args, folder),
            Found::ScoreSde(value, _) => score_sde(args, value, output),
            Found::Single(bytes, _) => single(args, bytes),
        }
    }

    fn of(preset: Preset, pretrained: Pretrained) -> Self {
        let Pretrained { sample_shape, weights, average, moments, step, .. } = pretrained;
        Self { preset, sample_shape, weights, average, moments, step, provenance: BTreeMap::new() }
    }
}

fn diffusers(args: &Import, folder: &Folder) -> Result<Imported> {
    let mut preset = Source::find(args.preset.as_deref().unwrap_or(DIFFUSERS))?.score()?;
    let mut pretrained = folder.read().with_context(|| args.source.clone())?;
    let process = match &args.process {
        Some(name) => published(name)?,
        None => {
            let Schedule { beta_start, beta_end, steps } = folder.schedule()?.ok_or_else(|| {
                let text = "the folder has no scheduler_config.json: name the process with --process, ddpm for the published chain";
                Failure::Config(format!("{}: {text}", args.source))
            })?;
            ProcessConfig::Ddpm { beta_start, beta_end, steps }
        }
    };
    let clock = match process {
        ProcessConfig::Ddpm { .. } => (1.0, -1.0),
        ProcessConfig::Vp { .. } => (1000.0, -1.0),
        _ => return Err(no_clock("a network of diffusers", "ddpm or vp")),
    };
    set_clock(&mut pretrained.net, clock);
    set_process(&mut preset, process);
    preset.net = NetConfig::Unet(pretrained.net.clone());
    Ok(Imported::of(preset, pretrained))
}

fn score_sde(args: &Import, checkpoint: &Value, output: Output) -> Result<Imported> {
    let name = match &args.preset {
        Some(name) => name.clone(),
        None => fitting(checkpoint, output)?,
    };
    // The network is the preset's, so what is changed of it is changed before it is looked for.
    let mut source = Source::find(&name)?;
    args.sets.iter().try_for_each(|set| source.set(set))?;
    let mut preset = source.score()?;
    let NetConfig::Unet(mut net) = preset.net.clone() else {
        return Err(Failure::Config(format!("preset {name}: its network is no U-Net")).into());
    };
    if let Some(process) = args.process.as_deref().map(published).transpose()?
        && std::mem::discriminant(&process) != std::mem::discriminant(&preset.process)
    {
        let sinusoids = matches!(net.time, TimeFeatures::Sinusoidal { .. });
        let clock = match process {
            ProcessConfig::Ddpm { .. } if sinusoids => (1.0, -1.0),
            ProcessConfig::Vp { .. } | ProcessConfig::Subvp { .. } if sinusoids => (999.0, 0.0),
            _ => {
                return Err(no_clock(
                    &format!("the network of {name}"),
                    "vp, subvp or ddpm, if it has sinusoids",
                ));
            }
        };
        set_clock(&mut net, clock);
        set_process(&mut preset, process);
    }
    let sign = match preset.process {
        ProcessConfig::Ve { .. } => Sign::NegativeNoise,
        _ => Sign::Noise,
    };
    let (shape, _) = preset.data.facts(output)?;
    let pretrained = score_sde::read(checkpoint, &net, &shape, sign).with_context(|| args.source.clone())?;
    preset.net = NetConfig::Unet(net);
    Ok(Imported::of(preset, pretrained))
}

/// The one built-in preset with the checkpoint's network. What it is trained with, its tensors do not tell.
fn fitting(checkpoint: &Value, output: Output) -> Result<String> {
    let mut fitting = Vec::new();
    for name in names() {
        let source = Source::find(name)?;
        if source.method().is_some() {
            continue;
        }
        let preset = source.score()?;
        let NetConfig::Unet(net) = &preset.net else { continue };
        let (shape, _) = preset.data.facts(output)?;
        if score_sde::check(checkpoint, net, &shape).is_ok() {
            fitting.push(name);
        }
    }
    match fitting.as_slice() {
        [one] => {
            output.say(format!("the network is that of preset {one}"));
            Ok((*one).to_owned())
        }
        [] => {
            let text = "no preset has the network of this checkpoint; name one with --preset to see what differs, or a .toml of your own";
            Err(Failure::Config(text.into()).into())
        }
        several => {
            let text = format!(
                "the network fits the presets {}, and a checkpoint does not tell its process: name one with --preset",
                several.join(", ")
            );
            Err(Failure::Config(text).into())
        }
    }
}

fn single(args: &Import, bytes: &[u8]) -> Result<Imported> {
    if args.process.is_some() {
        let text = "--process: the file tells its process; --set process.KEY=… changes a number of it";
        return Err(Failure::Usage(text.into()).into());
    }
    let (card, weights) = single_file::read(bytes).with_context(|| args.source.clone())?;
    let source = match (&args.preset, &card.preset) {
        (Some(name), _) => Source::find(name)?,
        (None, Some(text)) => Source::of_text(&args.source, text)?,
        (None, None) => {
            let text = "the file tells its network alone; name a preset for the rest with --preset";
            return Err(Failure::Config(text.into()).into());
        }
    };
    let mut preset = source.score()?;
    preset.net = card.net;
    Ok(Imported {
        preset,
        sample_shape: card.sample_shape,
        weights,
        average: None,
        moments: None,
        step: card.step,
        provenance: card
            .provenance
            .into_iter()
            .map(|(key, value)| (format!("exported_{key}"), value))
            .collect(),
    })
}

fn published(name: &str) -> Result<ProcessConfig> {
    ProcessConfig::published(name)
        .ok_or_else(|| sampler::unknown("process", name, ProcessConfig::NAMES).into())
}

fn no_clock(what: &str, supported: &str) -> anyhow::Error {
    Failure::Config(format!("--process: {what} knows no times of it; it can be {supported}")).into()
}

/// The network's times in those of its process.
fn set_clock(net: &mut UnetConfig, (scale, shift): (f64, f64)) {
    if let TimeFeatures::Sinusoidal { time_scale, time_shift, .. } = &mut net.time {
        (*time_scale, *time_shift) = (scale, shift);
    }
}

/// Another process, with the times to train at and a grid to sample on.
fn set_process(preset: &mut Preset, process: ProcessConfig) {
    let same = std::mem::discriminant(&preset.process) == std::mem::discriminant(&process);
    preset.process = process;
    if let ProcessConfig::Ddpm { steps, .. } = preset.process {
        preset.loss.time = TimeLaw::DiscreteIndices { n: u32::try_from(steps).unwrap_or(u32::MAX) };
        if preset.sampler.grid == "discrete" {
            preset.sampler.steps = preset.sampler.steps.min(steps);
        }
    } else if !same {
        preset.loss.time = TimeLaw::Uniform { from: 1e-5, to: 1.0 };
    }
    if !same {
        preset.sampler.grid = "auto".into();
    }
}
