//! `eval-score`: what is wrong with a score, against time: its loss, its Fokker–Planck residual, its asymmetry, its paths, and where the
//! law is known its error.

mod pictures;
mod table;
mod theory;

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{Device, Tensor};
use sde_core::noise::{BatchNoise, Noise, Stream};
use sde_core::{Field, LinearSde, lift};
use sde_data::{Split, Toy};
use sde_eval::score::{
    Asymmetry, Boxes, Directions, DsmLoss, FokkerPlanck, KnownLaw, Noised, ScoreError, Steps, Theory,
    Trajectories, asymmetry, dsm_loss, fokker_planck, score_error, trajectories,
};
use sde_solvers::{Adaptive, Chart};
use serde_json::{Value, json};

use super::sample::{OracleSettings, exact_field, explicit_times, merge};
use crate::build::{Use, sampler};
use crate::cli::EvalScore;
use crate::exit::Failure;
use crate::oracle;
use crate::output::{Output, save_record};
use crate::provenance::revision;
use crate::run::Run;

/// Up to this dimension derivatives are taken along all axes unless something else is asked for.
const EXACT: usize = 4;

/// What is measured at one time.
struct Row {
    t: f64,
    /// log ρ, or whatever the process's clock is.
    clock: f64,
    loss: DsmLoss,
    error: Option<ScoreError>,
    residual: FokkerPlanck,
    asymmetry: Asymmetry,
}

/// Everything that is measured.
struct Found {
    rows: Vec<Row>,
    paths: Trajectories,
    theory: Option<Theory>,
}

/// How it is measured.
struct Settings<'a> {
    law: Option<&'a dyn KnownLaw>,
    times: Vec<f64>,
    directions: Directions,
    steps: Steps,
    solver: Adaptive,
    chart: Chart,
    theory: bool,
}

/// Runs the command.
pub fn run(args: &EvalScore, output: Output) -> Result<()> {
    match &args.density.oracle {
        Some(file) => of_density(args, file, output),
        None => of_network(args, output),
    }
}

fn of_density(args: &EvalScore, file: &Path, output: Output) -> Result<()> {
    let settings = OracleSettings::resolve(&args.density, &args.opening.sets, |_| ())?;
    let sde = settings.process.build()?;
    let law = oracle::read(file)?.lift(sde.as_ref())?;
    let times = times(args, sde.as_ref())?;
    let field = exact_field(&law, sde.as_ref(), times.last().copied().unwrap_or(sde.span().end));
    let noise = Noise::new(args.seed);
    let draws = (0..args.n as u32).flat_map(|i| law.sample(&mut noise.draws(Stream::Metric, 0, i)));
    let data = Tensor::from_vec(draws.collect::<Vec<f64>>(), (args.n, law.dim()), &Device::Cpu)?;
    let batch = args.batch.unwrap_or(settings.likelihood.batch);
    let points = Noised { sde: sde.as_ref(), field: &field, data: &data, noise, batch };
    let chart = settings.sampler.chart()?.unwrap_or_else(|| Chart::natural(sde.as_ref()));
    let how = Settings {
        law: Some(&law),
        directions: directions(args, law.dim()),
        steps: Steps::DOUBLE,
        solver: settings.sampler.adaptive(),
        chart,
        times,
        theory: args.theory,
    };
    let record = json!({
        "oracle": file.display().to_string(),
        "process": settings.process,
        "code_revision": revision(),
    });
    finish(args, &points, &how, record, args.out.clone(), output)
}

fn of_network(args: &EvalScore, output: Output) -> Result<()> {
    let run = Run::of_command(args.run.as_deref(), &args.opening, |_| (), output)?;
    let split = match args.split.as_str() {
        "train" => Split::Train,
        "test" => Split::Test,
        other => return Err(sampler::unknown("split", other, &["train", "test"]).into()),
    };
    let loaded = run.preset.data.load(split, Use::Likelihood, run.seed, output)?;
    let law = law(args, loaded.toy.as_ref(), &run)?;
    let noise = Noise::new(args.seed);
    let n = args.n.min(loaded.set.len());
    let indices: Vec<usize> = (0..n).collect();
    let data = loaded.set.batch(&indices, &BatchNoise::new(noise, 0, 0..n as u32))?.x;
    let data = lift(run.sde.as_ref(), &data)?;
    let (sde, field): (&dyn LinearSde, &dyn Field) = (run.sde.as_ref(), &run.field());
    let batch = args.batch.unwrap_or(run.preset.likelihood.batch);
    let points = Noised { sde, field, data: &data, noise, batch };
    let how = Settings {
        law: law.as_deref(),
        times: times(args, sde)?,
        directions: directions(args, run.state_shape()?.iter().product()),
        steps: Steps::SINGLE,
        solver: run.preset.sampler.adaptive(),
        chart: run.preset.sampler.chart()?.unwrap_or_else(|| Chart::natural(sde)),
        theory: args.theory,
    };
    let mut record = run.record();
    record["split"] = json!(split.name());
    let folder = args.out.clone().unwrap_or_else(|| run.path.join("records"));
    finish(args, &points, &how, record, Some(folder), output)
}

/// The law of a run's data, where its noised scores are known.
fn law(args: &EvalScore, toy: Option<&Toy>, run: &Run) -> Result<Option<Box<dyn KnownLaw>>> {
    let law: Option<Box<dyn KnownLaw>> = match (&args.law, toy) {
        (Some(file), _) => Some(Box::new(oracle::read(file)?.lift(run.sde.as_ref())?)),
        (None, None) => None,
        (None, Some(toy)) => match (toy.mixture()?, toy.boxes()) {
            (Some(mixture), _) => Some(Box::new(mixture.lift(run.sde.as_ref())?)),
            // Boxes are known for scalar processes only.
            (None, Some(_)) if run.sde.signal(run.sde.span().end).as_scalar().is_none() => None,
            (None, Some(boxes)) => Some(Box::new(Boxes::new(boxes)?)),
            (None, None) => None,
        },
    };
    let dim: usize = run.state_shape()?.iter().product();
    match law {
        Some(law) if law.dim() != dim => {
            let text = format!("--law has states of {} dimensions, this run of {dim}", law.dim());
            Err(Failure::Data(text).into())
        }
        law => Ok(law),
    }
}

fn directions(args: &EvalScore, dim: usize) -> Directions {
    match args.probes.unwrap_or(usize::from(dim > EXACT)) {
        0 => Directions::Axes,
        probes => Directions::Random { probes },
    }
}

/// Increasing times: those of a file, or even in the process's clock. Where the signal is gone at T the last lies before it.
fn times(args: &EvalScore, sde: &dyn LinearSde) -> Result<Vec<f64>> {
    if let Some(grid) = explicit_times(args.density.times.as_deref())? {
        return Ok(grid.times().iter().rev().copied().collect());
    }
    let span = sde.span();
    let end = if sde.clock(span.end).is_finite() { span.end } else { 0.999 * span.end };
    let (low, high) = (sde.clock(span.likelihood), sde.clock(end));
    let last = args.count.saturating_sub(1).max(1) as f64;
    let at = |k: usize| match k {
        0 => span.likelihood,
        k if k + 1 == args.count => end,
        k => sde.time_of_clock(low + (high - low) * k as f64 / last),
    };
    Ok((0..args.count).map(at).collect())
}

fn measure(points: &Noised<'_>, how: &Settings<'_>, output: Output) -> Result<Found> {
    let bar = output.bar(how.times.len() as u64 + 1, "measuring");
    let mut rows = Vec::new();
    for &t in &how.times {
        rows.push(Row {
            t,
            clock: points.sde.clock(t),
            loss: dsm_loss(points, t)?,
            error: how.law.map(|law| score_error(points, law, t)).transpose()?,
            residual: fokker_planck(points, t, how.directions, how.steps)?,
            asymmetry: asymmetry(points, t, how.directions)?,
        });
        bar.inc(1);
    }
    let ends = (how.times.first().copied().unwrap_or(0.0), how.times.last().copied().unwrap_or(1.0));
    let paths = trajectories(points, &how.solver, how.chart, ends)?;
    let theory = how.theory.then(|| theory::measure(points, how, ends)).transpose()?;
    bar.finish_and_clear();
    Ok(Found { rows, paths, theory })
}

fn finish(
    args: &EvalScore,
    points: &Noised<'_>,
    how: &Settings<'_>,
    mut record: Value,
    folder: Option<PathBuf>,
    output: Output,
) -> Result<()> {
    let found = measure(points, how, output)?;
    let shape: Vec<usize> = points.data.dims()[1..].to_vec();
    merge(
        &mut record,
        json!({
            "command": "eval-score",
            "seed": args.seed,
            "n": points.data.dim(0)?,
            "dim": shape.iter().product::<usize>(),
            "directions": match how.directions {
                Directions::Axes => json!("axes"),
                Directions::Random { probes } => json!({ "random": probes }),
            },
            "steps": { "state": how.steps.state, "clock": how.steps.clock },
            "times": found.rows.iter().map(Row::record).collect::<Vec<_>>(),
            "paths": found.paths,
            "theory": found.theory.map(|theory| theory::record(&theory)),
        }),
    );
    if let Some(folder) = &folder {
        let mut files = pictures::save(&found.rows, folder)?;
        if let (Some(law), [2]) = (how.law, shape.as_slice()) {
            let (maps, told) = pictures::error_maps(points, law, &how.times, folder)?;
            files.extend(maps);
            record["error_maps"] = told;
        }
        record["files"] = json!(files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>());
        save_record(&folder.join("score.json"), &record)?;
    }
    output.result(table::text(&found), &record)
}

impl Row {
    fn record(&self) -> Value {
        json!({
            "t": self.t,
            "clock": self.clock,
            "loss": self.loss.noise,
            "score_loss": self.loss.score,
            "error": self.error.map(|e| e.noise),
            "residual_squared": self.residual.squared,
            "residual_norm": self.residual.norm,
            "rate_squared": self.residual.rate_squared,
            "relative_residual": self.residual.relative(),
            "difference_error": self.residual.difference_error,
            "asymmetry": self.asymmetry.ratio,
        })
    }
}
