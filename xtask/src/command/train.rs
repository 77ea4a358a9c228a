//! `train`: a preset to a run.

mod existing;

pub use existing::{bearing, seed_of};

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use candle_core::Device;
use indicatif::ProgressBar;
use sde_train::checkpoint::Origin;
use sde_train::hash::{sha256, weights_hash};
use sde_train::{Ended, Hooks, LogRecord, RunDir, State, Task, fit, resume};
use serde_json::{Value, json};

use crate::cli::Train;
use crate::config::Source;
use crate::device;
use crate::exit::Failure;
use crate::figures::grouped;
use crate::method::{self, Method, Parts, Running};
use crate::output::{Output, save_record};
use crate::plot;
use crate::provenance::{device_name, provenance, revision};
use crate::run::ROOT;
use crate::signals;

/// Runs the command.
pub fn run(args: &Train, output: Output) -> Result<()> {
    let (_, summary, record) = fit_preset(args, output)?;
    output.result(summary, &record)
}

/// Trains, and returns the run's directory, a summary and a record.
pub fn fit_preset(args: &Train, output: Output) -> Result<(PathBuf, String, Value)> {
    let (existing, source) = asked(args)?;
    let mut method = method::of(&source)?;
    method.check()?;
    if let Some(path) = &existing {
        existing::require_same(path, method.as_ref())?;
    }
    if args.dry_run {
        let text = method.to_toml()?;
        return Ok((existing.unwrap_or_default(), text.trim_end().to_owned(), method.to_value()?));
    }
    let device = device::select(&args.device.name, output)?;
    let seed = match (args.seed, &existing) {
        (Some(seed), _) => seed,
        (None, Some(path)) => seed_of(path)?,
        (None, None) => 0,
    };
    method.prepare(existing.as_deref())?;
    let text = method.to_toml()?;
    // What is wrong with data or network is found before there is a directory.
    let parts = method.build(seed, &device, output)?;
    let provenance = flat(&provenance(&device), seed);
    let mut directory = match (&existing, &args.out) {
        (Some(path), _) => RunDir::open(path)?,
        (None, Some(path)) => create_at(path, &text, &provenance)?,
        (None, None) => RunDir::create(Path::new(ROOT), method.name(), &text, &provenance)?,
    };
    let path = directory.path().to_owned();
    method.keep(&path)?;
    let (summary, record) = train(method.as_ref(), parts, seed, args.steps, &mut directory, &device, output)?;
    Ok((path, summary, record))
}

/// The run that is to go on, if there is one, and the configuration that is asked for.
fn asked(args: &Train) -> Result<(Option<PathBuf>, Source)> {
    let existing = if args.resume { Some(existing::find(args)?) } else { None };
    let mut source = match &existing {
        Some(path) => Source::read(&path.join("config.toml"))?,
        None => Source::find(&args.preset)?,
    };
    if let Some(run) = &args.from {
        let run = toml::Value::String(run.display().to_string());
        source.add("start", toml::Table::from_iter([("run".to_owned(), run)]).into());
    }
    args.sets.iter().try_for_each(|set| source.set(set))?;
    Ok((existing, source))
}

/// Whether the loss that is asked for needs gradients of gradients; what is wrong with the asking is told later.
pub fn needs_nested(args: &Train) -> bool {
    asked(args).and_then(|(_, source)| method::of(&source)).is_ok_and(|method| method.needs_nested())
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

/// Trains from where the directory's run is, up to `steps` updates or the preset's.
fn train(
    method: &dyn Method,
    parts: Parts,
    seed: u64,
    steps: Option<u64>,
    directory: &mut RunDir,
    device: &Device,
    output: Output,
) -> Result<(String, Value)> {
    let Parts { data, held_out, objective, params, classes } = parts;
    let config = method.train();
    let mut state = State::new(config, &params)?;
    let config_sha256 = sha256(bearing(method)?.to_string().as_bytes());
    let origin = Origin { seed, config_sha256, code: revision() };
    let resumed = resume(directory, &mut state, &origin)?;
    for (skipped, why) in &resumed.skipped {
        output.say(format!("passing over {}: {why}", skipped.display()));
    }
    let until = steps.unwrap_or(config.steps);
    output.say(format!(
        "{}: {} parameters, {} examples, {}, updates {} to {until}",
        directory.path().display(),
        grouped(params.count()),
        grouped(data.len()),
        device_name(device),
        state.step(),
    ));
    let stop = signals::stop_flag()?;
    let running =
        Running { directory: directory.path().to_owned(), data: data.clone(), device, seed, output };
    let bar = output.bar(until, "training");
    bar.set_position(state.step());
    bar.reset_eta();
    let begun = (Instant::now(), state.step());
    let mut hooks = Progress { bar, method, running, last: None };
    let objective = objective.as_ref();
    let task = Task { config, origin: &origin, objective, classes, data, held_out };
    let ended = fit(&task, &mut state, directory, until, &stop, &mut hooks);
    hooks.bar.finish_and_clear();
    let found = report(method, seed, directory, &state, &ended?, begun, hooks.last.take(), device)?;
    method.ended(&state, &hooks.running)?;
    Ok(found)
}

/// What a training leaves behind besides its checkpoints: a loss curve and a record.
#[expect(clippy::too_many_arguments, reason = "all that a record of training holds, in one place")]
fn report(
    method: &dyn Method,
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
    plot::loss_curve(&plot::read_log(&directory.path().join("log.jsonl"))?, method.name(), &curve)?;
    let record = json!({
        "command": "train",
        "run": directory.path().display().to_string(),
        "preset": method.name(),
        "step": ended.step,
        "seed": seed,
        "parameters": state.params().count(),
        "loss": last.as_ref().map(|l| l.loss),
        "held_out_loss": last.as_ref().and_then(|l| l.held_out_loss),
        "seconds": seconds,
        "images_per_second": (updates as usize * method.train().batch) as f64 / seconds.max(1e-9),
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

/// Shows progress, and has the sample sheets drawn.
struct Progress<'a> {
    bar: ProgressBar,
    method: &'a dyn Method,
    running: Running<'a>,
    last: Option<LogRecord>,
}

impl Hooks for Progress<'_> {
    fn on_log(&mut self, record: &LogRecord) {
        self.bar.set_position(record.step);
        self.bar.set_message(format!("loss {:.4}", record.loss));
        self.last = Some(record.clone());
    }

    fn on_sample(&mut self, state: &State) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.method.sheet(state, &self.running)?)
    }
}
