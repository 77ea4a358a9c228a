//! `sample`: draw from a run, or from a known density.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use ndarray::Array2;
use sde_core::grid::require_signal;
use sde_core::noise::{BatchNoise, Noise, Recorded};
use sde_core::{LinearSde, OracleField, TimeGrid};
use sde_data::{Encoding, Picture, Range, read};
use sde_solvers::prior_sample;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::build::{LikelihoodConfig, ProcessConfig, SamplerConfig, sampler};
use crate::cli::{Oracle, Sample};
use crate::config::Source;
use crate::device;
use crate::exit::Failure;
use crate::files::{read_tensor, read_vector, write_tensor};
use crate::oracle;
use crate::output::{Output, save_record, write};
use crate::provenance::revision;
use crate::run::Run;
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
        source.put("sampler", "grid", process.grid());
        edit(&mut source);
        sets.iter().try_for_each(|set| source.set(set))?;
        source.parse()
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
        Some(file) => from_density(args, file, output),
        None => from_network(args, output),
    }
}

/// The options that stand for settings of the section `sampler`.
fn edit(args: &Sample, source: &mut Source) {
    if let Some(name) = &args.sampler {
        source.put("sampler", "name", name.clone());
    }
    if let Some(steps) = args.steps {
        source.put("sampler", "steps", steps as i64);
    }
    if let Some(grid) = &args.grid {
        source.put("sampler", "grid", grid.clone());
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

fn from_density(args: &Sample, file: &Path, output: Output) -> Result<()> {
    let settings = OracleSettings::resolve(&args.density, &args.sets, |source| edit(args, source))?;
    let (data, sde) = (oracle::read(file)?, settings.process.build()?);
    let times = explicit_times(args.density.times.as_deref())?;
    let recipe = Recipe { sde: sde.as_ref(), config: &settings.sampler, times: times.as_ref() };
    let field = exact_field(&data, sde.as_ref(), recipe.grid()?.start());
    let given = args.init.as_deref().map(|path| states(path, &[data.dim()])).transpose()?;
    let noise = BatchNoise::new(Noise::new(args.seed), 0, addresses(args, given.as_ref())?);
    let start = match given {
        Some(x) => x,
        None => prior_sample(sde.as_ref(), &noise, &[data.dim()], DType::F64, &Device::Cpu)?,
    };
    let drawn = match &args.noise {
        Some(path) => recipe.run(&field, &start, &recorded(path, &recipe, &start)?)?,
        None => recipe.run(&field, &start, &noise)?,
    };
    let mut record = sampler_record(&recipe, &drawn, args)?;
    record["oracle"] = json!(file.display().to_string());
    record["process"] = json!(settings.process);
    if let Some(out) = &args.out {
        write_tensor(out, &drawn.x)?;
        record["files"] = json!([out.display().to_string()]);
    }
    let summary = format!("{} samples, {} network calls each", drawn.nfe.len(), drawn.nfe_record());
    let place = match &args.out {
        Some(out) => format!(": {}", out.display()),
        None => " (not kept; --out FILE.npy does)".into(),
    };
    output.result(summary + &place, &record)
}

/// Given initial states, checked against the shape of one sample.
fn states(path: &Path, shape: &[usize]) -> Result<Tensor> {
    let x = read_tensor(path)?;
    if x.rank() == shape.len() + 1 && &x.dims()[1..] == shape {
        return Ok(x);
    }
    let text =
        format!("{}: expected a batch of samples of shape {shape:?}, found {:?}", path.display(), x.dims());
    Err(Failure::Data(text).into())
}

/// Given noise, which must reach for every step of a sampler and fit the states.
fn recorded(path: &Path, recipe: &Recipe<'_>, x: &Tensor) -> Result<Recorded> {
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

fn from_network(args: &Sample, output: Output) -> Result<()> {
    let device = device::select(&args.device.name, output)?;
    let run = Run::open(
        args.run.as_deref(),
        args.weights.as_deref(),
        &args.sets,
        |s| edit(args, s),
        &device,
        output,
    )?;
    let times = explicit_times(args.density.times.as_deref())?;
    let recipe = Recipe { sde: run.sde.as_ref(), config: &run.preset.sampler, times: times.as_ref() };
    let field = run.field();
    let noise = Noise::new(args.seed);
    let given = args.init.as_deref().map(|path| states(path, &run.shape)).transpose()?;
    let addresses = addresses(args, given.as_ref())?;
    let drawn = match (&given, &args.noise) {
        (Some(x), Some(path)) => recipe.run(&field, x, &recorded(path, &recipe, x)?)?,
        (Some(x), None) => recipe.run(&field, x, &BatchNoise::new(noise, 0, addresses))?,
        (None, _) => {
            let bar = output.bar(addresses.len() as u64, "sampling");
            let drawn = recipe.draw(&field, &run.shape, noise, &addresses, args.batch, &mut |done| {
                bar.set_position(done as u64);
            });
            bar.finish_and_clear();
            drawn?
        }
    };
    let mut record = run.record();
    merge(&mut record, sampler_record(&recipe, &drawn, args)?);
    let name = format!("{}-{}", run.preset.sampler.name, run.preset.sampler.steps);
    let out = args.out.clone().unwrap_or_else(|| run.path.join("samples").join(name));
    let files = save(&run, &drawn.x, &out, output)?;
    record["files"] = json!(files);
    let place = if is_npy(&out) { run.path.join("records/sample.json") } else { out.join("record.json") };
    save_record(&place, &record)?;
    let summary = format!(
        "{} samples, {} network calls each: {}",
        drawn.nfe.len(),
        drawn.nfe_record(),
        files.join(", ")
    );
    output.result(summary, &record)
}

fn is_npy(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "npy")
}

/// Puts the keys of `more` into `record`.
pub fn merge(record: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(from)) = (record, more) {
        into.extend(from);
    }
}

/// Writes samples as what they are: a sheet and npz for images, a cloud and npy for points; or just the array.
fn save(run: &Run, x: &Tensor, out: &Path, output: Output) -> Result<Vec<String>> {
    if is_npy(out) {
        write_tensor(out, x)?;
        return Ok(vec![out.display().to_string()]);
    }
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut files = Vec::new();
    let mut keep = |path: PathBuf| files.push(path.display().to_string());
    if let Some(picture) = picture(run, x, output)? {
        let path = out.join("samples.png");
        write(&path, &picture.to_png()?)?;
        keep(path);
    }
    match run.image_levels() {
        Some((range, levels)) => {
            let path = out.join("samples.npz");
            let levels = Encoding::Quantised { levels, range }.quantise(x)?;
            read::npz::write_samples(&path, &levels)?;
            keep(path);
        }
        None => {
            let path = out.join("samples.npy");
            write_tensor(&path, x)?;
            keep(path);
        }
    }
    Ok(files)
}

/// The picture of samples: a sheet of images, or a cloud of points of the plane.
pub fn picture(run: &Run, x: &Tensor, output: Output) -> Result<Option<Picture>> {
    if let Some((range, _)) = run.image_levels() {
        return sheet(x, range).map(Some);
    }
    if run.shape != [2] {
        output.say(format!("no picture for samples of shape {:?}", run.shape));
        return Ok(None);
    }
    cloud(x).map(Some)
}

/// A sheet of at most 100 images, zoomed to a size one can see.
pub fn sheet(x: &Tensor, range: Range) -> Result<Picture> {
    let shown = x.dim(0)?.min(100);
    let columns = (shown as f64).sqrt().ceil() as usize;
    let zoom = (64 / x.dim(2)?.max(1)).clamp(1, 6);
    Ok(Picture::sheet(&x.narrow(0, 0, shown)?.to_dtype(DType::F32)?, range, columns, zoom)?)
}

/// Points of the plane, in the square of three standard deviations.
pub fn cloud(x: &Tensor) -> Result<Picture> {
    let values = x.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let points = Array2::from_shape_vec((x.dim(0)?, 2), values)?;
    let side = Range::new(-3.0, 3.0)?;
    Ok(Picture::cloud(points.view(), side, side, 256, 2)?)
}
