//! `eval-nll`: the likelihood of held-out data under a run, or of points under a known density; or a bound of it.

mod method;
mod work;

use std::path::Path;

use anyhow::Result;
use candle_core::{Device, Tensor};
use ndarray::Array1;
use sde_core::TimeGrid;
use sde_core::noise::Noise;
use sde_data::Split;
use sde_eval::{Estimate, Evaluation, Nll, Prior, Protocol, nll, nll_of_points};
use serde_json::{Value, json};

use self::method::{Method, Setting};
use self::work::{Cost, Work, examples_hash, list};
use super::plane;
use super::sample::{OracleSettings, exact_field, explicit_times, merge};
use crate::build::{Kind, LikelihoodConfig, Loaded, Use, sampler};
use crate::cli::EvalNll;
use crate::config::Source;
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
    let counts = [
        ("probes", args.probes),
        ("repeats", args.repeats),
        ("batch", args.batch),
        ("steps", args.steps),
        ("draws", args.draws),
        ("dequantise_samples", args.dequantise_samples),
        ("velocities", args.velocities),
    ];
    for (key, value) in counts {
        if let Some(value) = value {
            source.put("likelihood", key, value as i64);
        }
    }
    let names = [
        ("divergence", &args.divergence),
        ("sampler", &args.sampler),
        ("grid", &args.grid),
        ("bound", &args.bound),
        ("variance", &args.variance),
        ("velocity_average", &args.velocity_average),
    ];
    for (key, value) in names {
        if let Some(value) = value {
            source.put("likelihood", key, value.clone());
        }
    }
}

/// The protocol of a configuration.
pub fn protocol(config: &LikelihoodConfig, noise: Noise) -> Protocol {
    let dequantisations = config.dequantise_samples.unwrap_or(1);
    Protocol { noise, repeats: config.repeats, dequantisations, batch: config.batch }
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

/// The same, which says what kind of number it is.
fn told(method: &Method<'_>, found: &Nll) -> String {
    let by = method.velocities().map_or_else(String::new, |k| match k {
        1 => ", by one draw of velocities".into(),
        k => format!(", by {k} draws of velocities"),
    });
    match method.kind() {
        Kind::Flow if by.is_empty() => summary(found),
        Kind::Flow => format!("bound of the likelihood{by}: {}", summary(found)),
        Kind::Elbo => format!("bound of the SDE's likelihood{by}: {}", summary(found)),
        Kind::Discrete => format!("bound of the chain's likelihood{by}: {}", summary(found)),
    }
}

fn of_density(args: &EvalNll, file: &Path, output: Output) -> Result<()> {
    let settings = OracleSettings::resolve(&args.density, &args.opening.sets, |source| edit(args, source))?;
    let (law, sde) = (oracle::read(file)?, settings.process.build()?);
    let data = law.lift(sde.as_ref())?;
    let points = args.points.as_deref().ok_or_else(|| {
        Failure::Usage("--oracle needs --points FILE.npy: the points whose density is wanted".into())
    })?;
    let x = read_tensor(points)?;
    if x.rank() != 2 || x.dim(1)? != law.dim() {
        let text = format!("{}: expected [N, {}], found {:?}", points.display(), law.dim(), x.dims());
        return Err(Failure::Data(text).into());
    }
    let times = explicit_times(args.density.times.as_deref())?;
    let span = sde.span();
    let field = exact_field(&data, sde.as_ref(), times.as_ref().map_or(span.end, TimeGrid::start));
    let setting = Setting {
        sde: sde.as_ref(),
        process: &settings.process,
        field: &field,
        prior: if args.prior == "exact" { Prior::Exact(&data) } else { Prior::Standard },
        config: &settings.likelihood,
        sampler: &settings.sampler,
        // Where sampling of a known density stops, its likelihood starts.
        start: span.sampling,
        diffusion: None,
    };
    let method = Method::new(setting, times.as_ref())?;
    let density = method.density(sde_data::Encoding::Continuous)?;
    let protocol = protocol(&settings.likelihood, Noise::new(args.seed));
    let found = nll_of_points(density.as_ref(), &x, &protocol, &mut |_| ())?;
    let mut record = method.record(&found)?;
    record["oracle"] = json!(file.display().to_string());
    record["process"] = json!(settings.process);
    record["seed"] = json!(args.seed);
    record["code_revision"] = json!(revision());
    if let Some(out) = &args.out {
        write_tensor(out, &log_densities(&found, x.dim(0)?)?)?;
        record["files"] = json!([out.display().to_string()]);
    }
    output.result(told(&method, &found), &record)
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

/// What the measurement of a run is made of.
fn setting<'a>(run: &'a Run, field: &'a dyn sde_core::Field) -> Setting<'a> {
    Setting {
        sde: run.sde.as_ref(),
        process: &run.preset.process,
        field,
        prior: Prior::Standard,
        config: &run.preset.likelihood,
        sampler: &run.preset.sampler,
        start: run.sde.span().likelihood,
        diffusion: run.diffusion.as_ref(),
    }
}

/// The data that a measurement is of.
fn load(run: &Run, method: &Method<'_>, split: Split, output: Output) -> Result<Loaded> {
    let purpose = if method.kind() == Kind::Discrete { Use::Bound } else { Use::Likelihood };
    run.preset.data.load(split, purpose, run.seed, output)
}

fn of_network(args: &EvalNll, output: Output) -> Result<()> {
    let run = Run::of_flow_command(args.run.as_deref(), &args.opening, |s| edit(args, s), output)?;
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
    let field = run.field();
    let method = Method::new(setting(&run, &field), times.as_ref())?;
    let data = load(&run, &method, split, output)?;
    let density = method.density(data.set.encoding())?;
    let protocol = protocol(&run.preset.likelihood, Noise::new(args.seed));
    let n = args.n.unwrap_or(data.set.len()).min(data.set.len());
    let bound = run.preset.likelihood.bound.as_ref().map_or_else(String::new, |bound| format!("-{bound}"));
    let dim = run.state_shape()?.iter().product();
    let work = Work {
        evaluation: Evaluation::new(density.as_ref(), data.set.as_ref(), protocol)?,
        protocol,
        n,
        folder: run.path.join("records"),
        name: format!("nll-{}{bound}", split.name()),
        identity: json!({
            "weights": run.record()["weights_sha256"],
            "method": method.identity(),
            "split": split.name(),
            "data": run.preset.data,
            "examples": n,
            "examples_sha256": examples_hash(data.set.as_ref(), n, &protocol)?,
            "seed": args.seed,
        }),
        cost: method.exact_products(dim)?.map(|products| Cost { products, calls: method.calls() }),
    };
    let whole = match args.shard {
        Some(shard) => {
            work.part(shard, output)?;
            let missing = work.missing(shard.of)?;
            if !missing.is_empty() {
                let mut record = run.record();
                let part = format!("{}/{}", shard.part, shard.of);
                merge(&mut record, json!({ "command": "eval-nll", "shard": part, "missing": missing }));
                let text = format!("part {part} is done; of the others {} are missing", list(&missing));
                return output.result(text, &record);
            }
            work.merged(shard.of)?
        }
        None if args.merge => work.merged(work.parts()?)?,
        None => work.whole(output)?,
    };
    let found = work.evaluation.summarise(whole.solves.clone())?;
    let mut record = describe(&run, &method, &data, &found, (split, args.seed), output)?;
    record["seed"] = json!(args.seed);
    save_record(&work.folder.join(format!("{}.json", work.name)), &record)?;
    whole.finish()?;
    if let Some(out) = &args.out {
        write_tensor(out, &log_densities(&found, found.nats.n + found.unfinished)?)?;
    }
    output.result(told(&method, &found), &record)
}

/// The record of a likelihood that was measured.
fn describe(
    run: &Run,
    method: &Method<'_>,
    data: &Loaded,
    found: &Nll,
    (split, seed): (Split, u64),
    output: Output,
) -> Result<Value> {
    let mut record = run.record();
    if run.shape == [2] && method.kind() == Kind::Flow {
        let density = method.density(data.set.encoding())?;
        merge(&mut record, plane::describe(run, density.as_ref(), seed, output)?);
    }
    merge(&mut record, method.record(found)?);
    record["split"] = json!(split.name());
    if let Some(entropy) = data.toy.as_ref().and_then(sde_data::Toy::entropy) {
        record["entropy_nats"] = json!(entropy);
    }
    Ok(record)
}

/// The likelihood of a split under a run, and its record.
pub fn measure(run: &Run, split: Split, noise: Noise, output: Output) -> Result<(Nll, Value)> {
    let field = run.field();
    let method = Method::new(setting(run, &field), None)?;
    let data = load(run, &method, split, output)?;
    let density = method.density(data.set.encoding())?;
    let protocol = protocol(&run.preset.likelihood, noise);
    let indices: Vec<usize> = (0..data.set.len()).collect();
    let bar = output.bar((indices.len() * protocol.repeats) as u64, "solving");
    let progress = &mut |done| bar.set_position(done as u64);
    let found = nll(density.as_ref(), data.set.as_ref(), &indices, &protocol, progress);
    bar.finish_and_clear();
    let found = found?;
    let record = describe(run, &method, &data, &found, (split, noise.seed()), output)?;
    Ok((found, record))
}
