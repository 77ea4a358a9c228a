//! `eval-nll`: the likelihood of held-out data under a run, or of points under a known density.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use ndarray::Array1;
use sde_core::TimeGrid;
use sde_core::noise::Noise;
use sde_data::Split;
use sde_eval::{Estimate, Likelihood, Nll, Prior, Protocol, nll, nll_of_points};
use sde_solvers::Chart;
use serde_json::{Value, json};

use super::plane;
use super::sample::{OracleSettings, exact_field, explicit_times, merge};
use crate::build::{LikelihoodConfig, SamplerConfig, Use, sampler};
use crate::cli::EvalNll;
use crate::config::Source;
use crate::device;
use crate::exit::Failure;
use crate::files::{read_tensor, write_tensor};
use crate::oracle;
use crate::output::{Output, save_record};
use crate::provenance::revision;
use crate::run::Run;

/// Runs the command.
pub fn run(args: &EvalNll, output: Output) -> Result<()> {
    if !["standard", "exact"].contains(&args.prior.as_str()) {
        return Err(sampler::unknown("prior", &args.prior, &["standard", "exact"]).into());
    }
    match &args.density.oracle {
        Some(file) => of_density(args, file, output),
        None => of_network(args, output),
    }
}

/// The options that stand for settings of the section `likelihood`.
fn edit(args: &EvalNll, source: &mut Source) {
    let counts = [("probes", args.probes), ("repeats", args.repeats), ("batch", args.batch)];
    for (key, value) in counts {
        if let Some(value) = value {
            source.put("likelihood", key, value as i64);
        }
    }
    if let Some(divergence) = &args.divergence {
        source.put("likelihood", "divergence", divergence.clone());
    }
}

fn protocol(args: &EvalNll, config: &LikelihoodConfig) -> Protocol {
    Protocol {
        noise: Noise::new(args.seed),
        repeats: config.repeats,
        dequantisations: 1,
        batch: config.batch,
    }
}

/// The settings that a likelihood takes from a configuration.
pub fn configure<'a>(
    base: Likelihood<'a>,
    sampler: &SamplerConfig,
    times: Option<&TimeGrid>,
) -> Result<Likelihood<'a>> {
    let ends = times.map_or((base.start, base.end), |grid| (grid.stop(), grid.start()));
    Ok(Likelihood {
        chart: sampler.chart()?.unwrap_or_else(|| Chart::natural(base.sde)),
        start: ends.0,
        end: ends.1,
        ..base
    })
}

/// A value with its standard error.
pub fn estimate(value: &Estimate) -> String {
    match value.standard_error {
        Some(error) => format!("{:.4} ± {error:.4}", value.value),
        None => format!("{:.4}", value.value),
    }
}

/// One line on a likelihood.
pub fn summary(found: &Nll) -> String {
    let main = match &found.bits_per_dim {
        Some(bits) => format!("{} bits/dim", estimate(bits)),
        None => format!("{} nats", estimate(&found.nats)),
    };
    let unfinished = match found.unfinished {
        0 => String::new(),
        n => format!(", {n} not finished and left out"),
    };
    format!("{main} (n = {}, {:.0} network calls each{unfinished})", found.nats.n, found.nfe.mean)
}

/// A likelihood as the keys of a record.
pub fn record_of(
    found: &Nll,
    likelihood: &Likelihood<'_>,
    config: &LikelihoodConfig,
    sampler: &SamplerConfig,
) -> Value {
    let main = found.bits_per_dim.as_ref().unwrap_or(&found.nats);
    let mut record = json!({
        "command": "eval-nll",
        "nats": found.nats.value,
        "nats_stderr": found.nats.standard_error,
        "stderr": main.standard_error,
        "n": found.nats.n,
        "dim": found.dim,
        "nfe": found.nfe,
        "unfinished": found.unfinished,
        "estimator_error_nats": found.estimator_error,
        "prior": likelihood.prior.name(),
        "divergence": config.divergence,
        "probes": config.probes,
        "repeats": config.repeats,
        "t_start": likelihood.start,
        "t_stop": likelihood.end,
        "rtol": sampler.rtol,
        "atol": sampler.atol,
        "chart": sampler.chart,
    });
    if let Some(bits) = &found.bits_per_dim {
        record["bits_per_dim"] = json!(bits.value);
    }
    record
}

fn of_density(args: &EvalNll, file: &Path, output: Output) -> Result<()> {
    let settings = OracleSettings::resolve(&args.density, &args.sets, |source| edit(args, source))?;
    let (data, sde) = (oracle::read(file)?, settings.process.build()?);
    let points = args.points.as_deref().ok_or_else(|| {
        Failure::Usage("--oracle needs --points FILE.npy: the points whose density is wanted".into())
    })?;
    let x = read_tensor(points)?;
    if x.rank() != 2 || x.dim(1)? != data.dim() {
        let text = format!("{}: expected [N, {}], found {:?}", points.display(), data.dim(), x.dims());
        return Err(Failure::Data(text).into());
    }
    let times = explicit_times(args.density.times.as_deref())?;
    let span = sde.span();
    let end = times.as_ref().map_or(span.end, TimeGrid::start);
    let field = exact_field(&data, sde.as_ref(), end);
    let divergence = settings.likelihood.divergence()?;
    let prior = if args.prior == "exact" { Prior::Exact(&data) } else { Prior::Standard };
    let base = Likelihood::new(sde.as_ref(), &field, divergence, settings.sampler.adaptive());
    // Where sampling of a known density stops, its likelihood starts.
    let likelihood =
        configure(Likelihood { prior, start: span.sampling, ..base }, &settings.sampler, times.as_ref())?;
    let found = nll_of_points(&likelihood, &x, &protocol(args, &settings.likelihood), &mut |_| ())?;
    let mut record = record_of(&found, &likelihood, &settings.likelihood, &settings.sampler);
    record["oracle"] = json!(file.display().to_string());
    record["process"] = json!(settings.process);
    record["seed"] = json!(args.seed);
    record["code_revision"] = json!(revision());
    if let Some(out) = &args.out {
        write_tensor(out, &log_densities(&found, x.dim(0)?)?)?;
        record["files"] = json!([out.display().to_string()]);
    }
    output.result(summary(&found), &record)
}

/// The log density of each point, averaged over repeats.
fn log_densities(found: &Nll, n: usize) -> Result<Tensor> {
    let mut sums = Array1::<f64>::zeros(n);
    for solve in &found.solves {
        let value = solve.result.value.ok_or_else(|| {
            let text = format!("point {}: the solve ended with {:?}", solve.index, solve.result.outcome);
            Failure::NonFinite(text)
        })?;
        sums[solve.index] += value / found.repeats as f64;
    }
    Ok(Tensor::from_vec(sums.to_vec(), n, &Device::Cpu)?)
}

fn of_network(args: &EvalNll, output: Output) -> Result<()> {
    let device = device::select(&args.device.name, output)?;
    let run = Run::open(
        args.run.as_deref(),
        args.weights.as_deref(),
        &args.sets,
        |s| edit(args, s),
        &device,
        output,
    )?;
    if args.prior == "exact" {
        let text = "--prior exact: the law of a network's data at T is not known; take standard, or --oracle";
        return Err(Failure::Usage(text.into()).into());
    }
    let split = match args.split.as_str() {
        "train" => Split::Train,
        "test" => Split::Test,
        other => return Err(sampler::unknown("split", other, &["train", "test"]).into()),
    };
    let times = explicit_times(args.density.times.as_deref())?;
    let (found, mut record) =
        measure(&run, split, args.n, &protocol(args, &run.preset.likelihood), times.as_ref(), output)?;
    record["seed"] = json!(args.seed);
    let name = format!("nll-{}", args.split);
    let csv = run.path.join("records").join(format!("{name}.csv"));
    let file = std::fs::File::create(&csv).with_context(|| format!("cannot write {}", csv.display()))?;
    found
        .write_csv(std::io::BufWriter::new(file))
        .with_context(|| format!("cannot write {}", csv.display()))?;
    save_record(&run.path.join("records").join(format!("{name}.json")), &record)?;
    if let Some(out) = &args.out {
        write_tensor(out, &log_densities(&found, found.nats.n + found.unfinished)?)?;
    }
    output.result(summary(&found), &record)
}

/// The likelihood of a split under a run, and its record.
pub fn measure(
    run: &Run,
    split: Split,
    n: Option<usize>,
    protocol: &Protocol,
    times: Option<&TimeGrid>,
    output: Output,
) -> Result<(Nll, Value)> {
    let data = run.preset.data.load(split, Use::Likelihood, run.seed, output)?;
    let config = &run.preset.likelihood;
    let field = run.field();
    let base = Likelihood::new(run.sde.as_ref(), &field, config.divergence()?, run.preset.sampler.adaptive());
    let likelihood = configure(base, &run.preset.sampler, times)?;
    let indices: Vec<usize> = (0..n.unwrap_or(data.set.len()).min(data.set.len())).collect();
    let bar = output.bar((indices.len() * protocol.repeats) as u64, "solving");
    let found =
        nll(&likelihood, data.set.as_ref(), &indices, protocol, &mut |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    let found = found?;
    let mut record = run.record();
    if run.shape == [2] {
        merge(&mut record, plane::describe(run, &likelihood, protocol.noise.seed(), output)?);
    }
    merge(&mut record, record_of(&found, &likelihood, config, &run.preset.sampler));
    record["split"] = json!(split.name());
    if let Some(entropy) = data.toy.as_ref().and_then(sde_data::Toy::entropy) {
        record["entropy_nats"] = json!(entropy);
    }
    Ok((found, record))
}
