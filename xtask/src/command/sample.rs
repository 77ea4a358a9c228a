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

/// The addresses of the samples wanted.
fn addresses(args: &Sample) -> Result<Vec<u32>> {
    let Some(range) = &args.seeds else { return Ok((0..args.n.unwrap_or(64)).collect()) };
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
    let noise = Noise::new(args.seed);
    let addresses = addresses(args)?;
    let start = match &args.init {
        Some(path) => states(path, &[data.dim()])?,
        None => {
            let noise = BatchNoise::new(noise, 0, addresses.iter().copied());
            prior_sample(sde.as_ref(), &noise, &[data.dim()], DType::F64, &Device::Cpu)?
        }
    };
    let drawn = match &args.noise {
        Some(path) => recipe.run(&field, &start, &Recorded(read_tensor(path)?)),
        None => {
            let batch = start.dim(0)? as u32;
            let samples = if args.init.is_some() { (0..batch).collect() } else { addresses };
            recipe.run(&field, &start, &BatchNoise::new(noise, 0, samples))
        }
    }?;
    let mut record = sampler_record(&recipe, &drawn, args)?;
    record["oracle"] = json!(file.display().to_string());
    record["process"] = json!(settings.process);
    if let Some(out) = &args.out {
        write_tensor(out, &drawn.x)?;
        record["files"] = json!([out.display().to_string()]);
    }
    let summary = format!("{} samples, {} network calls each", drawn.nfe.len(), drawn.nfe_record());
    let place = args.out.as_ref().map_or(String::new(), |out| format!(": {}", out.display()));
    output.result(summary + &place, &record)
}

/// Given initial states, checked against the shape of one sample.
fn states(path: &Path, shape: &[usize]) -> Result<Tensor> {
    let x = read_tensor(path)?;
    if x.rank() == shape.len() + 1 && &x.dims()[1..] == shape {
        return Ok(x);
    }
    let text = format!("{}: expected [B, {shape:?}], found {:?}", path.display(), x.dims());
    Err(Failure::Data(text).into())
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
    let addresses = addresses(args)?;
    let drawn = match (&args.init, &args.noise) {
        (Some(init), given) => {
            let x = states(init, &run.shape)?;
            match given {
                Some(path) => recipe.run(&field, &x, &Recorded(read_tensor(path)?))?,
                None => recipe.run(&field, &x, &BatchNoise::new(noise, 0, 0..x.dim(0)? as u32))?,
            }
        }
        (None, Some(_)) => return Err(Failure::Usage("--noise goes with --init".into()).into()),
        (None, None) => {
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
