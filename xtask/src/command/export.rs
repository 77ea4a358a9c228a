//! `export`: the weights of a run as one file, or as a folder for diffusers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sde_nets::pretrained::diffusers::{self, Schedule};
use sde_nets::pretrained::single_file::{self, Card};
use sde_nets::{NetConfig, Weights};
use sde_train::hash::weights_hash;
use serde_json::json;

use crate::build::{ProcessConfig, sampler};
use crate::cli::Export;
use crate::config::{Preset, Source};
use crate::exit::Failure;
use crate::output::Output;
use crate::provenance::revision;
use crate::run::{Saved, locate};

const FORMATS: &[&str] = &["single", "diffusers"];

/// Runs the command.
pub fn run(args: &Export, output: Output) -> Result<()> {
    if !FORMATS.contains(&args.format.as_str()) {
        return Err(sampler::unknown("format", &args.format, FORMATS).into());
    }
    if args.out.exists() {
        let text = format!("{}: it exists; name another path", args.out.display());
        return Err(Failure::Usage(text).into());
    }
    let path = locate(args.run.as_deref())?;
    let preset = Source::read(&path.join("config.toml"))?.score()?;
    if preset.variance.is_some() {
        let text = format!(
            "{}: a second output is no network of its own; export the run it stands on",
            path.display()
        );
        return Err(Failure::Config(text).into());
    }
    if let ProcessConfig::Learned(_) = preset.process {
        let text = format!(
            "{}: a network alone is exported, and this one is for a process that was learned with it, which no file of weights describes",
            path.display()
        );
        return Err(Failure::Config(text).into());
    }
    let Saved { label, weights, checkpoint: saved } =
        Saved::latest(&path, &preset.train, args.weights.as_deref(), output)?;
    let (data, _) = preset.data.facts(output)?;
    let shape = preset.process.state_shape(&data)?;
    let step = saved.manifest().step;
    let files = match args.format.as_str() {
        "diffusers" => folder(&preset, &shape, &weights, output)?,
        _ => {
            let card = Card {
                preset: Some(toml::to_string(&preset)?),
                step,
                average: label.strip_prefix("ema ").map(str::to_owned),
                provenance: history(&path, &saved.manifest().origin.code)?,
                ..Card::new(preset.net.clone(), &shape)
            };
            vec![(String::new(), single_file::write(&card, &weights)?)]
        }
    };
    write(&args.out, &files)?;
    let record = json!({
        "command": "export",
        "run": path.display().to_string(),
        "format": args.format,
        "out": args.out.display().to_string(),
        "step": step,
        "weights": label,
        "weights_sha256": weights_hash(&weights)?,
        "code_revision": revision(),
    });
    output.result(format!("{}: {label} weights after {step} updates", args.out.display()), &record)
}

/// The files of a folder for diffusers.
fn folder(
    preset: &Preset,
    shape: &[usize],
    weights: &Weights,
    output: Output,
) -> Result<Vec<(String, Vec<u8>)>> {
    if preset.mixed_score.is_some() {
        return Err(Failure::Config(format!(
            "{}: a mixed score is no network of diffusers; export it as a single file",
            preset.name
        ))
        .into());
    }
    let NetConfig::Unet(net) = &preset.net else {
        return Err(Failure::Config(format!(
            "{}: diffusers has no such network, it is no U-Net",
            preset.name
        ))
        .into());
    };
    let schedule = match preset.process {
        ProcessConfig::Ddpm { beta_start, beta_end, steps } => Some(Schedule { beta_start, beta_end, steps }),
        _ => {
            output.say("the process is no chain of diffusers: the folder gets no scheduler");
            None
        }
    };
    Ok(diffusers::write(net, shape, schedule, weights)?)
}

/// Where the weights come from: the code that trained them, and what their run knows of a source.
fn history(run: &Path, code: &str) -> Result<BTreeMap<String, String>> {
    let file = run.join("provenance.json");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let known: BTreeMap<String, String> =
        serde_json::from_str(&text).map_err(|error| Failure::Data(format!("{}: {error}", file.display())))?;
    let kept = known.into_iter().filter(|(key, _)| key.starts_with("source") || key == "seed");
    Ok(kept.chain([("code_revision".to_owned(), code.to_owned())]).collect())
}

/// Writes a file, or a folder of files, beside its place first, so that it is never there by half.
fn write(out: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    let mut aside = out.as_os_str().to_owned();
    aside.push(".tmp");
    let aside = PathBuf::from(aside);
    let written = files.iter().try_for_each(|(name, bytes)| {
        let place = if name.is_empty() { aside.clone() } else { aside.join(name) };
        crate::output::write(&place, bytes)
    });
    let done = written.and_then(|()| {
        std::fs::rename(&aside, out).with_context(|| format!("cannot rename to {}", out.display()))
    });
    if done.is_err() {
        let _ = if aside.is_dir() { std::fs::remove_dir_all(&aside) } else { std::fs::remove_file(&aside) };
    }
    done
}
