//! Samples of a run's network.

use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::Result;
use candle_core::Tensor;
use ndarray::Array1;
use sde_core::Field;
use sde_core::noise::{BatchNoise, Noise};
use sde_data::read::npy::{NpyArray, write_npy};
use serde_json::{Value, json};

use super::diffusion;
use super::edit;
use super::guide::{self, Guided};
use super::save::{is_npy, save};
use super::{addresses, configure, explicit_times, merge, recorded, sampler_record, states};
use crate::calibration;
use crate::cli::Sample;
use crate::exit::Failure;
use crate::files::write_tensor;
use crate::method::diffflow::is_chain;
use crate::output::{Output, save_record};
use crate::run::Run;
use crate::sampling::{Calibration, Drawn, Recipe, Start};
use crate::signals;
use crate::stash::{Entries, Stash};

/// Runs the command.
pub fn run(args: &Sample, output: Output) -> Result<()> {
    let run = Run::of_flow_command(args.run.as_deref(), &args.opening, |s| configure(args, s), output)?;
    if let Some(of_run) = &run.diffusion {
        let chain = is_chain(&run.preset.sampler)?;
        diffusion::check(args, chain)?;
        if chain {
            return diffusion::run(args, &run, of_run, output);
        }
    }
    let times = explicit_times(args.density.times.as_deref())?;
    let given = args.init.as_deref().map(|path| states(path, &run.state_shape()?)).transpose()?;
    let mut wanted = addresses(args, given.as_ref())?;
    let known = edit::known(&run, &args.edit)?;
    let plain = Recipe::new(run.sde.as_ref(), &run.preset.sampler, times.as_ref());
    let mut from = edit::start(&run, args, &plain, &wanted)?;
    if let Some(n) = from.samples {
        wanted = (0..n as u32).collect();
    }
    let Guided { field, labels } = guide::field(&run, &args.guide, &wanted)?;
    let field = guide::clipped(&run, &args.guide, edit::guided(&run, known.as_ref(), field))?;
    guide::check_learned(&run, &args.guide, known.is_some())?;
    let start = std::mem::replace(&mut from.start, Start::Prior);
    let recipe = Recipe { start, known: known.as_ref(), ..plain };
    let calibration = calibration::of_run(&run, &recipe, output)?;
    let recipe = Recipe { calibration: calibration.as_ref(), ..recipe };
    let towards = json!({ "guidance": guide::record(&args.guide, labels.as_deref()), "edit": edit::record(&args.edit) });
    let folder = format!("{}-{}", run.preset.sampler.name, run.preset.sampler.steps);
    let out = args.out.clone().unwrap_or_else(|| run.path.join("samples").join(folder));
    let (drawn, stash) = match &given {
        Some(x) => (from_states(args, &recipe, field.as_ref(), x, wanted)?, None),
        None => {
            let work = Work {
                run: &run,
                recipe: &recipe,
                field: field.as_ref(),
                wanted: &wanted,
                seed: args.seed,
                batch: args.batch,
                towards: &towards,
            };
            let stash = work.draw(&out, output)?;
            (Drawn { x: stash.rows()?, nfe: stash.nfe().to_vec() }, Some(stash))
        }
    };
    let mut record = run.record();
    merge(&mut record, sampler_record(&recipe, &drawn, args)?);
    merge(&mut record, towards);
    record["round_trip_rms"] = json!(from.round_trip(&run, &args.edit, &drawn.x)?);
    let mut files = save(&run, &drawn.x, &out, output)?;
    files.extend(beside(&out, from.latents.as_ref(), labels.as_deref())?);
    stash.map_or(Ok(()), Stash::remove)?;
    record["files"] = json!(files);
    let place = if is_npy(&out) { run.path.join("records/sample.json") } else { out.join("record.json") };
    save_record(&place, &record)?;
    let (n, nfe) = (drawn.nfe.len(), drawn.nfe_text());
    output.result(format!("{n} samples, {nfe} network calls each: {}", files.join(", ")), &record)
}

/// Writes latents and labels beside the samples, and removes those of samples that were there before.
fn beside(out: &Path, latents: Option<&Tensor>, labels: Option<&[u32]>) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let place = |what: &str| {
        if is_npy(out) { out.with_extension(format!("{what}.npy")) } else { out.join(format!("{what}.npy")) }
    };
    for what in ["latents", "labels"] {
        match std::fs::remove_file(place(what)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    if let Some(latents) = latents {
        write_tensor(&place("latents"), latents)?;
        files.push(place("latents").display().to_string());
    }
    if let Some(labels) = labels {
        let labels: Array1<i64> = labels.iter().map(|&label| i64::from(label)).collect();
        write_npy(&place("labels"), &NpyArray::I64(labels.into_dyn()))?;
        files.push(place("labels").display().to_string());
    }
    Ok(files)
}

/// From given initial states, all at once.
fn from_states(
    args: &Sample,
    recipe: &Recipe<'_>,
    field: &dyn Field,
    x: &Tensor,
    addresses: Vec<u32>,
) -> Result<Drawn> {
    match &args.noise {
        Some(path) => recipe.run(field, x, &recorded(path, recipe, x)?),
        None => recipe.run(field, x, &BatchNoise::new(Noise::new(args.seed), 0, addresses)),
    }
}

/// Samples to draw.
pub struct Work<'a> {
    /// Of which run.
    pub run: &'a Run,
    /// How.
    pub recipe: &'a Recipe<'a>,
    /// By which field.
    pub field: &'a dyn Field,
    /// At which addresses.
    pub wanted: &'a [u32],
    /// The seed of all noise.
    pub seed: u64,
    /// Samples drawn together.
    pub batch: usize,
    /// What guides them, as their record tells it.
    pub towards: &'a Value,
}

impl Work<'_> {
    /// Batch after batch, each kept before the next is drawn; goes on where an earlier call was cut off.
    pub fn draw(&self, out: &Path, output: Output) -> Result<Stash> {
        let Self { run, recipe, field, wanted, seed, batch, .. } = *self;
        // One array keeps the values as they are, and images in a folder become levels.
        let (name, entries) = if is_npy(out) {
            (out.to_owned(), Entries::Double)
        } else {
            (out.join("samples"), Entries::of(run.encoding))
        };
        let mut stash = Stash::open(&name, &self.identity()?, entries, &run.shape)?;
        let there = stash.len();
        if there > 0 {
            output.say(format!("going on after {there} of {} samples", wanted.len()));
        }
        let stop = signals::stop_flag()?;
        let bar = output.bar(wanted.len() as u64, "sampling");
        bar.set_position(there as u64);
        let keep = &mut |drawn: Drawn| {
            stash.append(&drawn.x, &drawn.nfe)?;
            bar.set_position(stash.len() as u64);
            if stop.load(Ordering::Relaxed) && stash.len() < wanted.len() {
                let text =
                    format!("{} of {} samples are safe; the same command goes on", stash.len(), wanted.len());
                return Err(Failure::Stopped(text).into());
            }
            Ok(())
        };
        let result = recipe.draw(field, &run.shape, Noise::new(seed), (wanted, there), batch, keep);
        bar.finish_and_clear();
        result?;
        Ok(stash)
    }

    /// What the samples are samples of; the size of a batch is no part of it.
    fn identity(&self) -> Result<Value> {
        Ok(json!({
            "run": self.run.record()["weights_sha256"],
            "process": self.run.preset.process,
            "sampler": self.recipe.config,
            "times": self.recipe.grid()?.times(),
            "towards": self.towards,
            "made_of": edit::fingerprint(self.recipe.known, &self.recipe.start)?,
            "measured": self.recipe.calibration.map(Calibration::summary),
            "seed": self.seed,
            "samples": self.wanted,
        }))
    }
}
