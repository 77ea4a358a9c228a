//! `train`: a preset to a run.

mod existing;

pub use existing::bearing;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use candle_core::{DType, Device};
use indicatif::ProgressBar;
use sde_core::LinearSde;
use sde_core::noise::Noise;
use sde_data::{Dataset, Split};
use sde_nets::ops::{Products, allow_tf32};
use sde_nets::{Params, Weights};
use sde_train::checkpoint::Origin;
use sde_train::hash::{sha256, weights_hash};
use sde_train::loss::Loss;
use sde_train::{Ended, Hooks, LogRecord, RunDir, Scored, State, Task, fit, resume};
use serde_json::{Value, json};

use super::presets::grouped;
use super::sample::picture;
use crate::build::{ProcessConfig, Use, VarianceConfig, learned, unfinished};
use crate::cli::Train;
use crate::config::{Preset, Source};
use crate::device;
use crate::exit::Failure;
use crate::output::{Output, save_record};
use crate::plot;
use crate::provenance::{device_name, provenance, revision};
use crate::run::{Network, ROOT, Run, build_network};
use crate::sampling;
use crate::signals;

/// How many samples a picture shows while training: images, points.
const SHEET: u32 = 36;
const CLOUD: u32 = 4096;

/// Runs the command.
pub fn run(args: &Train, output: Output) -> Result<()> {
    let (_, summary, record) = fit_preset(args, output)?;
    output.result(summary, &record)
}

/// Trains, and returns the run's directory, a summary and a record.
pub fn fit_preset(args: &Train, output: Output) -> Result<(PathBuf, String, Value)> {
    let existing = if args.resume { Some(existing::find(args)?) } else { None };
    let mut source = match &existing {
        Some(path) => Source::read(&path.join("config.toml"))?,
        None => Source::find(&args.preset)?,
    };
    args.sets.iter().try_for_each(|set| source.set(set))?;
    let mut preset: Preset = source.parse()?;
    preset.train.check()?;
    require_known_score(&preset)?;
    if let Some(path) = &existing {
        existing::require_same(path, &preset)?;
    }
    if args.dry_run {
        let text = toml::to_string(&preset)?;
        return Ok((
            existing.unwrap_or_default(),
            text.trim_end().to_owned(),
            serde_json::to_value(&preset)?,
        ));
    }
    let device = device::select(&args.device.name, output)?;
    let seed = match (args.seed, &existing) {
        (Some(seed), _) => seed,
        (None, Some(path)) => existing::seed_of(path)?,
        (None, None) => 0,
    };
    let frozen = frozen(&mut preset, existing.as_deref())?;
    let text = toml::to_string(&preset)?;
    // What is wrong with data or network is found before there is a directory.
    let parts = Parts::build(&preset, frozen.as_ref(), seed, &device, output)?;
    let provenance = flat(&provenance(&device), seed);
    let mut directory = match (&existing, &args.out) {
        (Some(path), _) => RunDir::open(path)?,
        (None, Some(path)) => create_at(path, &text, &provenance)?,
        (None, None) => RunDir::create(Path::new(ROOT), &preset.name, &text, &provenance)?,
    };
    let path = directory.path().to_owned();
    if let Some(frozen) = &frozen {
        VarianceConfig::keep(&path, frozen)?;
    }
    let (summary, record) = train(&preset, parts, seed, args.steps, &mut directory, &device, output)?;
    Ok((path, summary, record))
}

/// Refuses a network on the exact ε of a process that is not known before it is trained.
fn require_known_score(preset: &Preset) -> Result<()> {
    if preset.mixed_score.is_some() && matches!(preset.process, ProcessConfig::Learned(_)) {
        let text = "mixed_score: its exact ε is that of a known process, and process.kind is \"learned\"; \
                    remove it, and take net.prediction = \"v\", which holds the state for late times just so";
        return Err(Failure::Config(text.into()).into());
    }
    Ok(())
}

/// The weights that a second output stands on, of a new run from its base, and their hash in the preset.
fn frozen(preset: &mut Preset, existing: Option<&Path>) -> Result<Option<Weights>> {
    let Some(variance) = preset.variance.clone() else { return Ok(None) };
    variance.moment()?;
    if let Some(path) = existing.filter(|path| VarianceConfig::is_kept(path)) {
        return Ok(Some(variance.kept_weights(path)?));
    }
    let weights = variance.base_weights(preset)?;
    let hash = weights_hash(&weights)?;
    if variance.weights_sha256.as_ref().is_some_and(|started| *started != hash) {
        let text = "variance.base: its weights are not those that the run was started with; start a new run";
        return Err(Failure::Config(text.into()).into());
    }
    preset.variance = Some(VarianceConfig { weights_sha256: Some(hash), ..variance });
    Ok(Some(weights))
}

/// Makes a new run in a directory that was named.
fn create_at(path: &Path, config: &str, provenance: &BTreeMap<String, String>) -> Result<RunDir> {
    let occupied = |error: &sde_train::Error| match error {
        sde_train::Error::Io { source, .. } => source.kind() == ErrorKind::AlreadyExists && path.is_dir(),
        _ => false,
    };
    match RunDir::create_at(path, config, provenance) {
        Err(error) if occupied(&error) => {
            let what = if path.join("config.toml").is_file() {
                "a run is there already; --resume goes on with it"
            } else {
                "something is there that is no run; remove it"
            };
            let text = format!("{}: {what}, or name another directory", path.display());
            Err(Failure::Usage(text).into())
        }
        other => Ok(other?),
    }
}

/// A run's provenance as it stands in its directory.
pub fn flat(record: &Value, seed: u64) -> BTreeMap<String, String> {
    let mut map: BTreeMap<String, String> = BTreeMap::from([("seed".into(), seed.to_string())]);
    for (key, value) in record.as_object().into_iter().flatten() {
        map.insert(key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    map
}

/// What a training is made of.
struct Parts {
    data: Arc<dyn Dataset>,
    held_out: Option<Arc<dyn Dataset>>,
    loss: Box<dyn Loss>,
    model: Network,
    params: Params,
}

impl Parts {
    fn build(
        preset: &Preset,
        frozen: Option<&Weights>,
        seed: u64,
        device: &Device,
        output: Output,
    ) -> Result<Self> {
        let load = |split| Ok::<_, anyhow::Error>(preset.data.load(split, Use::Training, seed, output)?.set);
        let data = load(Split::Train)?;
        preset.train.check_labels(preset.net.classes(), data.classes())?;
        let held_out = preset.train.held_out.map(|_| load(Split::Test)).transpose()?;
        allow_tf32(preset.tf32.unwrap_or(false));
        let products = preset.products.unwrap_or(Products::Full);
        let ((model, forward), params) = Params::initialise(Noise::new(seed), DType::F32, device, |b| {
            let network = build_network(preset, &b.with_products(products), data.shape(), frozen)?;
            Ok((network, learned::forward(&preset.process, b, data.shape())?))
        })?;
        preset.train.check_groups(&params)?;
        let loss = match forward {
            Some(forward) => {
                preset.loss.learned(preset.variance.as_ref(), forward, (&params, &preset.train))?
            }
            None => {
                let sde: Arc<dyn LinearSde> = Arc::from(preset.process.build()?);
                if let Some(warning) = unfinished(sde.as_ref())? {
                    output.say(warning);
                }
                preset.loss.of(preset.variance.as_ref(), sde)?
            }
        };
        Ok(Self { data, held_out, loss, model, params })
    }
}

/// Trains from where the directory's run is, up to `steps` updates or the preset's.
fn train(
    preset: &Preset,
    parts: Parts,
    seed: u64,
    steps: Option<u64>,
    directory: &mut RunDir,
    device: &Device,
    output: Output,
) -> Result<(String, Value)> {
    let Parts { data, held_out, loss, model, params } = parts;
    let mut state = State::new(&preset.train, &params)?;
    let config_sha256 = sha256(bearing(preset)?.to_string().as_bytes());
    let origin = Origin { seed, config_sha256, code: revision() };
    let resumed = resume(directory, &mut state, &origin)?;
    for (skipped, why) in &resumed.skipped {
        output.say(format!("passing over {}: {why}", skipped.display()));
    }
    let until = steps.unwrap_or(preset.train.steps);
    output.say(format!(
        "{}: {} parameters, {} examples, {}, updates {} to {until}",
        directory.path().display(),
        grouped(params.count()),
        grouped(data.len()),
        device_name(device),
        state.step(),
    ));
    let stop = signals::stop_flag()?;
    let task = Task {
        config: &preset.train,
        origin: &origin,
        objective: &Scored { model: &model, loss: loss.as_ref() },
        classes: preset.net.classes(),
        data,
        held_out,
    };
    let bar = output.bar(until, "training");
    bar.set_position(state.step());
    bar.reset_eta();
    let begun = (Instant::now(), state.step());
    let mut hooks = Progress {
        bar,
        preset,
        data: task.data.clone(),
        device,
        output,
        directory: directory.path().to_owned(),
        seed,
        last: None,
    };
    let ended = fit(&task, &mut state, directory, until, &stop, &mut hooks);
    hooks.bar.finish_and_clear();
    let found = report(preset, seed, directory, &state, &ended?, begun, hooks.last.take(), device)?;
    hooks.warn_of_learned(&state)?;
    Ok(found)
}

/// What a training leaves behind besides its checkpoints: a loss curve and a record.
#[expect(clippy::too_many_arguments, reason = "all that a record of training holds, in one place")]
fn report(
    preset: &Preset,
    seed: u64,
    directory: &RunDir,
    state: &State,
    ended: &Ended,
    begun: (Instant, u64),
    last: Option<LogRecord>,
    device: &Device,
) -> Result<(String, Value)> {
    let seconds = begun.0.elapsed().as_secs_f64();
    let updates = ended.step - begun.1;
    let curve = directory.path().join("loss.svg");
    plot::loss_curve(&plot::read_log(&directory.path().join("log.jsonl"))?, &preset.name, &curve)?;
    let record = json!({
        "command": "train",
        "run": directory.path().display().to_string(),
        "preset": preset.name,
        "step": ended.step,
        "seed": seed,
        "parameters": state.params().count(),
        "loss": last.as_ref().map(|l| l.loss),
        "held_out_loss": last.as_ref().and_then(|l| l.held_out_loss),
        "seconds": seconds,
        "images_per_second": (updates as usize * preset.train.batch) as f64 / seconds.max(1e-9),
        "weights_sha256": weights_hash(&state.params().to_weights()?)?,
        "checkpoint": ended.checkpoint.as_ref().map(|p| p.display().to_string()),
        "code_revision": revision(),
        "device": device_name(device),
    });
    save_record(&directory.records().join("train.json"), &record)?;
    if ended.stopped {
        let text = format!("stopped by a signal at update {}, saved; --resume goes on", ended.step);
        return Err(Failure::Stopped(text).into());
    }
    let loss = last.map_or(String::new(), |l| format!(", loss {:.4}", l.loss));
    let summary = format!("{}: {} updates{loss}, {seconds:.0} s", directory.path().display(), ended.step);
    Ok((summary, record))
}

/// Shows progress, and draws the sample sheets.
struct Progress<'a> {
    bar: ProgressBar,
    preset: &'a Preset,
    data: Arc<dyn Dataset>,
    device: &'a Device,
    output: Output,
    directory: PathBuf,
    seed: u64,
    last: Option<LogRecord>,
}

impl Hooks for Progress<'_> {
    fn on_log(&mut self, record: &LogRecord) {
        self.bar.set_position(record.step);
        self.bar.set_message(format!("loss {:.4}", record.loss));
        self.last = Some(record.clone());
    }

    fn on_sample(&mut self, state: &State) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.sheet(state)?)
    }
}

impl Progress<'_> {
    /// The run with the weights that samplers take.
    fn run(&self, state: &State) -> Result<Run> {
        let weights = match state.averages().first() {
            Some(average) => average.to_weights()?,
            None => state.params().to_weights()?,
        };
        let (path, preset) = (self.directory.clone(), self.preset.clone());
        let facts = (self.data.shape().to_vec(), self.data.encoding());
        Run::of_weights(path, preset, facts, &weights, self.seed, self.device, json!({}))
    }

    /// Says so where a learned process does not reach its prior: what is known of others from the start, is known of it now.
    fn warn_of_learned(&self, state: &State) -> Result<()> {
        if matches!(self.preset.process, ProcessConfig::Learned(_))
            && let Some(warning) = unfinished(self.run(state)?.sde.as_ref())?
        {
            self.output.say(warning);
        }
        Ok(())
    }

    fn sheet(&self, state: &State) -> Result<()> {
        let run = self.run(state)?;
        let addresses: Vec<u32> = (0..if run.shape.len() == 1 { CLOUD } else { SHEET }).collect();
        let noise = Noise::new(self.seed);
        let drawn = sampling::of_run(&run, noise, &addresses, addresses.len(), self.output)?;
        if let Some(picture) = picture(&run, &drawn.x, self.output)? {
            picture.save(&self.directory.join("samples").join(format!("step-{:07}.png", state.step())))?;
        }
        Ok(())
    }
}
