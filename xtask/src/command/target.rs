//! `target`: samplers without data, side by side: bias, standard deviation and A = √(B² + S²) of log Z over runs, and what the samples look like.

use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor};
use sde_core::noise::{Noise, Stream};
use sde_core::target::{Drawn, TargetSampler};
use sde_data::Picture;
use sde_eval::{Estimate, angle_divergence};
use serde_json::{Value, json};

use crate::build::unknown;
use crate::cli::TargetArgs;
use crate::exit::Failure;
use crate::figures::{grouped, number, short};
use crate::files::{read_tensor, write_tensor};
use crate::output::{Output, save_record};
use crate::provenance::revision;
use crate::table::Table;
use crate::target::baseline::{self, Baselines};
use crate::target::{self, Chosen, TargetConfig, path_integral};

/// Cells of a picture along a side, and pixels of a cell.
const PICTURE: (usize, usize) = (160, 3);
/// Bins of a torsion.
const BINS: usize = 60;

/// What the runs of a sampler say about log Z.
struct Summary {
    estimate: Option<Spread>,
    bound: Option<Spread>,
}

/// Mean and standard deviation over runs.
struct Spread {
    mean: Estimate,
    deviation: f64,
}

impl Spread {
    fn of(values: Vec<f64>) -> Result<Option<Self>> {
        if values.is_empty() {
            return Ok(None);
        }
        let mean = Estimate::mean(&values)?;
        let deviation = mean.standard_error.map_or(f64::NAN, |error| error * (mean.n as f64).sqrt());
        Ok(Some(Self { mean, deviation }))
    }

    fn row(&self, what: &str, truth: Option<f64>) -> Vec<String> {
        let known = |f: &dyn Fn(f64) -> String| truth.map_or("–".into(), f);
        let bias = |truth: f64| self.mean.affine(1.0, -truth);
        vec![
            what.into(),
            short(&self.mean),
            known(&|truth| short(&bias(truth))),
            number(self.deviation),
            known(&|truth| number(bias(truth).value.hypot(self.deviation))),
        ]
    }

    fn record(&self, truth: Option<f64>) -> Value {
        let bias = truth.map(|truth| self.mean.affine(1.0, -truth));
        json!({
            "mean": self.mean,
            "standard_deviation": self.deviation,
            "bias": bias,
            "a": bias.map(|bias| bias.value.hypot(self.deviation)),
        })
    }
}

/// Runs the command.
pub fn run(args: &TargetArgs, output: Output) -> Result<()> {
    let config = path_integral::target(args)?;
    let chosen = target::find(&config)?;
    let (samplers, settings) = samplers(args, &config, &chosen, output)?;
    let truth = chosen.target.log_normaliser().or(args.truth);
    if args.picture.is_some() && chosen.window.is_none() {
        let text = format!("--picture: the target {} is not in the plane", args.name);
        return Err(Failure::Usage(text).into());
    }
    if args.against.is_some() && args.name != "alanine" {
        return Err(Failure::Usage("--against compares torsions, of the target alanine".into()).into());
    }

    let started = Instant::now();
    let runs = runs(args, &chosen, &samplers, output)?;
    let seconds = started.elapsed().as_secs_f64() / args.runs as f64;
    let summary = Summary {
        estimate: Spread::of(runs.iter().filter_map(|run| run.log_normaliser).collect())?,
        bound: Spread::of(runs.iter().filter_map(|run| run.bound).collect())?,
    };
    let first = equal_samples(&runs[0], args.seed)?;
    if let Some(file) = &args.save {
        write_tensor(file, &first)?;
    }
    draw(args, &chosen, &first)?;
    let torsions = compared(args, &first)?;
    let record = json!({
        "command": "target",
        "code_revision": revision(),
        "target": args.name,
        "dimensions": chosen.target.dim(),
        "sampler": args.sampler,
        "target_settings": config,
        "settings": settings,
        "runs": args.runs,
        "samples": args.n,
        "seed": args.seed,
        "truth": truth,
        "log_z": summary.estimate.as_ref().map(|spread| spread.record(truth)),
        "bound": summary.bound.as_ref().map(|spread| spread.record(truth)),
        "effective_share": share(&runs)?,
        "evaluations": runs[0].evaluations,
        "seconds_per_run": seconds,
        "torsions": torsions,
    });
    if let Some(file) = &args.out {
        save_record(file, &record)?;
    }
    output.result(text(args, &summary, &runs, truth, seconds, &torsions)?, &record)
}

/// The samplers of the runs, which take turns, and their settings for the record.
fn samplers(
    args: &TargetArgs,
    config: &TargetConfig,
    chosen: &Chosen,
    output: Output,
) -> Result<(Vec<Box<dyn TargetSampler>>, Value)> {
    if path_integral::NAMES.contains(&args.sampler.as_str()) {
        return path_integral::samplers(args, config, chosen, output);
    }
    if let Some(run) = args.trained.first() {
        let text =
            format!("--run {}: {} is not trained; pis-grad and pis-nn are", run.display(), args.sampler);
        return Err(Failure::Usage(text).into());
    }
    let baselines = Baselines::new(&args.sets)?;
    let known: Vec<&str> = baseline::NAMES.iter().chain(path_integral::NAMES).copied().collect();
    let sampler = baselines
        .sampler(&args.sampler, chosen.base.clone(), chosen.mass.clone())
        .ok_or_else(|| unknown("sampler", &args.sampler, &known))?;
    Ok((vec![sampler], baselines.record(&args.sampler)?))
}

fn runs(
    args: &TargetArgs,
    chosen: &Chosen,
    samplers: &[Box<dyn TargetSampler>],
    output: Output,
) -> Result<Vec<Drawn>> {
    let bar = output.bar(args.runs as u64, "runs");
    let one = |i: usize| {
        let drawn = samplers[i % samplers.len()].draw(
            chosen.target.as_ref(),
            args.n,
            Noise::new(args.seed.wrapping_add(i as u64)),
        )?;
        bar.inc(1);
        Ok(drawn)
    };
    let runs = (0..args.runs).map(one).collect();
    bar.finish_and_clear();
    runs
}

/// The effective share of the weights, over runs; the smallest of a run that resamples.
fn share(runs: &[Drawn]) -> Result<Option<Estimate>> {
    let shares: Vec<f64> = runs.iter().filter_map(Drawn::effective_share).collect();
    Ok(if shares.is_empty() { None } else { Some(Estimate::mean(&shares)?) })
}

/// Samples that count alike: those of a run, resampled by its weights.
fn equal_samples(run: &Drawn, seed: u64) -> Result<Tensor> {
    let Some(weights) = &run.weights else { return Ok(run.samples.clone()) };
    let count = run.samples.dim(0)?;
    let mut draws = Noise::new(seed).draws(Stream::User, 0, 0);
    let chosen: Vec<u32> = weights.resample(count, &mut draws).into_iter().map(|i| i as u32).collect();
    Ok(run.samples.index_select(&Tensor::from_vec(chosen, count, &Device::Cpu)?, 0)?)
}

fn draw(args: &TargetArgs, chosen: &Chosen, samples: &Tensor) -> Result<()> {
    let (Some(file), Some(window)) = (&args.picture, chosen.window) else { return Ok(()) };
    let points =
        ndarray::Array2::from_shape_vec((samples.dim(0)?, 2), samples.flatten_all()?.to_vec1::<f64>()?)?;
    let (side, zoom) = PICTURE;
    crate::files::make_folder_of(file)?;
    Ok(Picture::cloud(points.view(), window, window, side, zoom)?.save(file)?)
}

/// KL(reference ‖ samples) of every torsion.
fn compared(args: &TargetArgs, samples: &Tensor) -> Result<Vec<(&'static str, Estimate)>> {
    let Some(file) = &args.against else { return Ok(Vec::new()) };
    let (reference, found) = (target::torsions(&read_tensor(file)?)?, target::torsions(samples)?);
    let pairs = reference.into_iter().zip(found);
    pairs.map(|((name, p), (_, q))| Ok((name, angle_divergence(&p, &q, BINS)?))).collect()
}

fn text(
    args: &TargetArgs,
    summary: &Summary,
    runs: &[Drawn],
    truth: Option<f64>,
    seconds: f64,
    torsions: &[(&'static str, Estimate)],
) -> Result<String> {
    let mut table = Table::new(&["log Z", "mean", "bias", "deviation", "A"]);
    for (what, spread) in [("estimate", &summary.estimate), ("lower bound", &summary.bound)] {
        spread.iter().for_each(|spread| table.row(spread.row(what, truth)));
    }
    let mut lines = vec![format!(
        "{}, {}: {} runs of {} samples, {} evaluations and {} s a run",
        args.name,
        args.sampler,
        args.runs,
        grouped(args.n),
        grouped(runs[0].evaluations as usize),
        number(seconds)
    )];
    if summary.estimate.is_some() || summary.bound.is_some() {
        lines.push(table.text().trim_end().to_owned());
    }
    if let Some(share) = share(runs)? {
        lines.push(format!("effective share of the weights {}", short(&share)));
    }
    if !torsions.is_empty() {
        let mut table = Table::new(&["torsion", "KL(reference, samples)"]);
        torsions.iter().for_each(|(name, kl)| table.row([(*name).to_owned(), short(kl)]));
        lines.push(table.text().trim_end().to_owned());
    }
    Ok(lines.join("\n"))
}
