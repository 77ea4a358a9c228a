//! `sample`: draw from a run, or from a known density.

mod density;
mod diffusion;
mod edit;
pub mod guide;
mod network;
mod save;

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::Tensor;
use sde_core::grid::require_signal;
use sde_core::noise::Recorded;
use sde_core::{LinearSde, OracleField, TimeGrid};
use serde::Deserialize;
use serde_json::{Value, json};

pub use network::Work;
pub use save::picture;

use crate::build::{LikelihoodConfig, ProcessConfig, SamplerConfig, sampler};
use crate::cli::{Oracle, Sample};
use crate::config::Source;
use crate::exit::Failure;
use crate::files::{read_tensor, read_vector};
use crate::output::Output;
use crate::provenance::revision;
use crate::sampling::{Drawn, Recipe};

/// The sections of a configuration without a preset.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OracleSettings {
    /// The sampler.
    pub sampler: SamplerConfig,
    /// The likelihood.
    pub likelihood: LikelihoodConfig,
    /// The process.
    pub process: ProcessConfig,
}

impl OracleSettings {
    /// The defaults of a run on a known density, for a process, with `--set` on top.
    pub fn resolve(density: &Oracle, sets: &[String], edit: impl Fn(&mut Source)) -> Result<Self> {
        let mut source = Source::oracle()?;
        let process = ProcessConfig::published(&density.process)
            .ok_or_else(|| sampler::unknown("process", &density.process, ProcessConfig::NAMES))?;
        source.add("process", toml::Value::try_from(process)?);
        edit(&mut source);
        sets.iter().try_for_each(|set| source.set(set))?;
        let mut settings: Self = source.parse()?;
        settings.sampler.resolve(&settings.process)?;
        Ok(settings)
    }
}

/// The exact field of a density: ε, or x₀ where the process has lost the signal at `from`.
pub fn exact_field<'a>(
    data: &'a sde_core::oracle::Mixture,
    sde: &'a dyn LinearSde,
    from: f64,
) -> OracleField<'a> {
    match require_signal(sde, from, "noise prediction") {
        Ok(()) => OracleField::noise(data, sde),
        Err(_) => OracleField::data(data, sde),
    }
}

/// The grid in a file of times.
pub fn explicit_times(path: Option<&Path>) -> Result<Option<TimeGrid>> {
    let Some(path) = path else { return Ok(None) };
    let grid = TimeGrid::new(read_vector(path)?).with_context(|| path.display().to_string())?;
    Ok(Some(grid))
}

/// Runs the command.
pub fn run(args: &Sample, output: Output) -> Result<()> {
    match &args.density.oracle {
        Some(file) => density::run(args, file, output),
        None => network::run(args, output),
    }
}

/// The options that stand for settings of the section `sampler`.
fn configure(args: &Sample, source: &mut Source) {
    if let Some(name) = &args.sampler {
        let degree = args.degree.map(|r| r.to_string()).unwrap_or_default();
        source.put("sampler", "name", name.clone() + &degree);
    }
    for (key, value) in [("eta", args.eta), ("lambda", args.lambda)] {
        if let Some(value) = value {
            source.put("sampler", key, value);
        }
    }
    if let Some(steps) = args.steps {
        source.put("sampler", "steps", steps as i64);
    }
    if let Some(grid) = &args.grid {
        source.put("sampler", "grid", grid.clone());
    }
    if !args.edit.encode.is_empty() && !args.denoise {
        source.put("sampler", "denoise", false);
    }
    if args.denoise || args.no_denoise {
        source.put("sampler", "denoise", args.denoise);
    }
}

/// The addresses of the samples wanted, as many as there are initial states if those are given.
fn addresses(args: &Sample, given: Option<&Tensor>) -> Result<Vec<u32>> {
    let wanted = match (&args.seeds, args.n, given) {
        (Some(range), ..) => parse_range(range)?,
        (None, Some(n), _) => (0..n).collect(),
        (None, None, Some(x)) => (0..x.dim(0)? as u32).collect(),
        (None, None, None) => (0..64).collect(),
    };
    match given {
        Some(x) if x.dim(0)? != wanted.len() => {
            let text =
                format!("--init holds {} states, but {} samples are asked for", x.dim(0)?, wanted.len());
            Err(Failure::Usage(text).into())
        }
        _ => Ok(wanted),
    }
}

fn parse_range(range: &str) -> Result<Vec<u32>> {
    let bad = || Failure::Usage(format!("--seeds {range}: expected A-B, such as 0-63"));
    let (from, to) = range.split_once('-').ok_or_else(bad)?;
    let (from, to): (u32, u32) = (from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?);
    if from <= to { Ok((from..=to).collect()) } else { Err(bad().into()) }
}

fn sampler_record(recipe: &Recipe<'_>, drawn: &Drawn, args: &Sample) -> Result<Value> {
    let grid = recipe.grid()?;
    Ok(json!({
        "command": "sample",
        "sampler": recipe.config,
        "times": grid.times(),
        "n": drawn.nfe.len(),
        "seed": args.seed,
        "seeds": args.seeds,
        "nfe": drawn.nfe_record(),
        "code_revision": revision(),
    }))
}

/// Given initial states, checked against the shape of one.
fn states(path: &Path, shape: &[usize]) -> Result<Tensor> {
    let x = read_tensor(path)?;
    if x.rank() == shape.len() + 1 && &x.dims()[1..] == shape {
        return Ok(x);
    }
    let text =
        format!("{}: expected a batch of states of shape {shape:?}, found {:?}", path.display(), x.dims());
    Err(Failure::Data(text).into())
}

/// Given noise, which must reach for every step of a sampler and fit the states.
fn recorded(path: &Path, recipe: &Recipe<'_>, x: &Tensor) -> Result<Recorded> {
    if recipe.config.entry()?.is_adaptive() {
        let text = format!("--noise: {} asks for as many draws as it takes steps", recipe.config.name);
        return Err(Failure::Usage(text).into());
    }
    let noise = read_tensor(path)?;
    let steps = recipe.grid()?.times().len() - 1;
    match noise.dims().split_first() {
        Some((there, shape)) if *there >= steps && shape == x.dims() => Ok(Recorded(noise)),
        _ => {
            let (path, found, shape) = (path.display(), noise.dims(), x.dims());
            let text =
                format!("{path}: expected noise of shape {shape:?} for {steps} steps, found {found:?}");
            Err(Failure::Data(text).into())
        }
    }
}

/// Puts the keys of `more` into `record`.
pub fn merge(record: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(from)) = (record, more) {
        into.extend(from);
    }
}
