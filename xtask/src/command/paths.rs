//! `paths`: what a run's forward process does to its data, and how its probability flow carries noise back.
//!
//! Of images a strip: a row for each example with its noised states `S_t x₀ + R_t ε`, one ε for all times, and below them a row for each path of the flow from the
//! prior, at the same times. Of points a section
//! through the space of states: paths of the flow, and at several times the field that they follow.

mod diffusion;

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream, host_tensor};
use sde_core::{Converted, Field, Prediction, TimeGrid, lift, project};
use sde_data::{Picture, Range, Split};
use sde_solvers::{Adaptive, Chart, ProbabilityFlow, prior_sample};
use serde_json::json;

use crate::build::Use;
use crate::cli::Paths;
use crate::exit::Failure;
use crate::output::{Output, save_record};
use crate::plot::{Panel, Place, Sections};
use crate::run::Run;

/// Tolerance of a path that is looked at.
const TOLERANCE: f64 = 1e-3;
/// Times between two that are shown, of points.
const BETWEEN: usize = 12;
/// Arrows along a side of a section.
const ARROWS: usize = 15;
/// Points of the data that are drawn for comparison.
const COMPARED: usize = 600;

/// Runs the command.
pub fn run(args: &Paths, output: Output) -> Result<()> {
    let run = Run::of_flow_command(args.run.as_deref(), &args.opening, |_| (), output)?;
    let images = run.image_levels();
    if images.is_some() && !args.axes.is_empty() {
        let text = format!("--axes: for points; {} has images", run.path.display());
        return Err(Failure::Usage(text).into());
    }
    let ending = if images.is_some() { "png" } else { "svg" };
    let file = args.out.clone().unwrap_or_else(|| run.path.join(format!("records/paths.{ending}")));
    if file.extension().is_none_or(|found| found != ending) {
        let text = format!("--out {}: the picture of this run is a .{ending}", file.display());
        return Err(Failure::Usage(text).into());
    }
    let (calls, axes) = match (images, &run.diffusion) {
        (Some((range, _)), Some(of_run)) => {
            (diffusion::strip(&run, of_run, (args, range), &file, output)?, None)
        }
        (None, Some(of_run)) => (diffusion::section(&run, of_run, args, &file, output)?, None),
        (Some((range, _)), None) => (strip(&run, range, args, &file, output)?, None),
        (None, None) => {
            let (calls, axes) = section(&run, args, &file, output)?;
            (calls, Some(axes))
        }
    };
    let mut record = run.record();
    super::sample::merge(
        &mut record,
        json!({
            "command": "paths",
            "seed": args.seed,
            "axes": axes,
            "network_calls": calls,
            "files": [file.display().to_string()],
        }),
    );
    save_record(&PathBuf::from(&file).with_extension("json"), &record)?;
    output.result(format!("{} ({calls} network calls)", file.display()), &record)
}

/// States along the flow from the prior, one tensor for each time of `grid`, and the calls of the busiest path.
fn flow(run: &Run, noise: &BatchNoise, grid: &TimeGrid, output: Output) -> Result<(Vec<Tensor>, usize)> {
    let (sde, field) = (run.sde.as_ref(), run.field());
    let mut state = prior_sample(sde, noise, &run.state_shape()?, DType::F64, &Device::Cpu)?;
    let flow = ProbabilityFlow::new(sde, &field, Chart::natural(sde));
    let (mut states, mut calls) = (vec![state.clone()], 0);
    let bar = output.bar(grid.steps() as u64, "following");
    for pair in grid.times().windows(2) {
        let solution = flow.solve(&Adaptive::new(TOLERANCE, TOLERANCE), &state, pair[0], pair[1])?;
        if let Some((path, report)) = solution.unfinished().next() {
            let text = format!("path {path} stopped at t = {}: {:?}", report.t, report.outcome);
            return Err(Failure::NonFinite(text).into());
        }
        calls += solution.reports.iter().map(|report| report.nfe).max().unwrap_or(0);
        state = solution.y;
        states.push(state.clone());
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((states, calls))
}

/// The first `n` held-out examples.
fn examples(run: &Run, n: usize, noise: Noise, output: Output) -> Result<Tensor> {
    let set = run.preset.data.load(Split::Test, Use::Training, run.seed, output)?.set;
    let indices: Vec<usize> = (0..n.min(set.len())).collect();
    let noise = BatchNoise::new(noise, 0, 0..indices.len() as u32);
    Ok(set.batch(&indices, &noise)?.x.to_dtype(DType::F64)?.to_device(&Device::Cpu)?)
}

/// The strip of images.
fn strip(run: &Run, range: Range, args: &Paths, file: &Path, output: Output) -> Result<usize> {
    let (sde, noise) = (run.sde.as_ref(), Noise::new(args.seed));
    let data = examples(run, args.n.unwrap_or(6), noise, output)?;
    let n = data.dim(0)?;
    let addresses = BatchNoise::new(noise, 0, 0..n as u32);
    let span = sde.span();
    let grid = TimeGrid::power(span.end, span.sampling, args.count - 1, 2.0)?;
    let (back, calls) = flow(run, &addresses, &grid, output)?;
    let lifted = lift(sde, &data)?;
    let eps =
        addresses.tensor(Law::Normal, Stream::Diffusion, 0, &lifted.dims()[1..], DType::F64, &Device::Cpu)?;
    let states =
        |t: f64| -> Result<Tensor> { Ok((sde.signal(t).apply(&lifted)? + sde.factor(t).apply(&eps)?)?) };
    let noised =
        grid.times().iter().rev().map(|&t| Ok(project(sde, &states(t)?)?)).collect::<Result<Vec<_>>>()?;
    let returned = back.iter().rev().map(|state| Ok(project(sde, state)?)).collect::<Result<Vec<_>>>()?;
    let empty = Tensor::full(range.low(), [&[1], &data.dims()[1..]].concat(), &Device::Cpu)?;
    let row = |first: Tensor, of: &[Tensor], i: usize| -> Result<Vec<Tensor>> {
        let rest = of.iter().map(|x| Ok(x.narrow(0, i, 1)?));
        std::iter::once(Ok(first)).chain(rest).collect()
    };
    // Data and its way to the noise; a row of nothing; and ways back, at the same times.
    let mut cells = Vec::new();
    for i in 0..n {
        cells.extend(row(data.narrow(0, i, 1)?, &noised, i)?);
    }
    cells.extend(vec![empty.clone(); args.count + 1]);
    for i in 0..n {
        cells.extend(row(empty.clone(), &returned, i)?);
    }
    let side = *run.shape.last().unwrap_or(&1);
    let sheet = Tensor::cat(&cells, 0)?;
    Picture::sheet(&sheet, range, args.count + 1, (64 / side).max(1))?.save(file)?;
    Ok(calls)
}

/// The section of points; returns the calls and the names of the axes.
fn section(run: &Run, args: &Paths, file: &Path, output: Output) -> Result<(usize, [String; 2])> {
    let (sde, noise) = (run.sde.as_ref(), Noise::new(args.seed));
    let names = names(run)?;
    let axes = axes(args, run.shape[0], &names)?;
    let paths = args.n.unwrap_or(60);
    let addresses = BatchNoise::new(noise, 0, 0..paths as u32);
    let span = sde.span();
    let grid = TimeGrid::power(span.end, span.sampling, (args.count - 1) * BETWEEN, 2.0)?;
    let (states, calls) = flow(run, &addresses, &grid, output)?;
    let places = |x: &Tensor| -> Result<Vec<Place>> {
        let rows = x.to_vec2::<f64>()?;
        Ok(rows.iter().map(|row| axes.map(|axis| row[axis])).collect())
    };
    let along = states.iter().map(places).collect::<Result<Vec<_>>>()?;
    let faint = places(&lift(sde, &examples(run, COMPARED, noise, output)?)?)?;
    let window = window(along.iter().flatten().chain(&faint));
    let whole = (0..paths).map(|i| along.iter().map(|places| places[i]).collect()).collect();
    let mut panels =
        vec![Panel { title: "paths, and the data".into(), faint, paths: whole, ..Panel::default() }];
    for (places, &t) in along.iter().zip(grid.times()).step_by(BETWEEN) {
        let arrows = arrows(run, t, &axes, names.len(), window)?;
        panels.push(Panel { title: format!("t = {t:.3}"), arrows, dots: places.clone(), ..Panel::default() });
    }
    let axes = axes.map(|axis| names[axis].clone());
    let title = format!("{}: the probability flow, from noise to data", run.preset.name);
    Sections { title, axes: axes.clone(), window, panels }.save(file)?;
    Ok((calls, axes))
}

/// What the coordinates of a state are called.
fn names(run: &Run) -> Result<Vec<String>> {
    let (&[dim], &[state]) = (run.shape.as_slice(), run.state_shape()?.as_slice()) else {
        let text = format!("{}: samples of shape {:?} are no points", run.path.display(), run.shape);
        return Err(Failure::Usage(text).into());
    };
    Ok((0..state).map(|i| format!("{}{}", if i < dim { "x" } else { "v" }, i % dim + 1)).collect())
}

/// The coordinates drawn, from 0.
fn axes(args: &Paths, dim: usize, names: &[String]) -> Result<[usize; 2]> {
    let wrong =
        |why: String| Failure::Usage(format!("--axes: {why}; the coordinates are {}", names.join(", ")));
    match args.axes.as_slice() {
        [] if names.len() < 2 => Err(wrong("a section needs two coordinates".into()).into()),
        // One coordinate of data has its velocity beside it.
        [] => Ok([0, if dim > 1 { dim - 1 } else { 1 }]),
        &[i, j] if i != j && [i, j].iter().all(|axis| (1..=names.len()).contains(axis)) => Ok([i - 1, j - 1]),
        found => Err(wrong(format!("expected two from 1 to {}, found {found:?}", names.len())).into()),
    }
}

/// A square that all but a few of the places lie in.
fn window<'a>(places: impl Iterator<Item = &'a Place>) -> [Place; 2] {
    let mut far: Vec<f64> = places.map(|[x, y]| x.abs().max(y.abs())).collect();
    far.sort_by(f64::total_cmp);
    let reach = far.get(far.len() * 995 / 1000).copied().unwrap_or(1.0) * 1.05;
    [[-reach, -reach], [reach, reach]]
}

/// The way the flow goes towards the data, on a grid of the section; the other coordinates are 0.
fn arrows(
    run: &Run,
    t: f64,
    axes: &[usize; 2],
    dim: usize,
    [low, high]: [Place; 2],
) -> Result<Vec<(Place, Place)>> {
    let along =
        |axis: usize, i: usize| low[axis] + (high[axis] - low[axis]) * (i as f64 + 0.5) / ARROWS as f64;
    let places: Vec<Place> =
        (0..ARROWS * ARROWS).map(|at| [along(0, at % ARROWS), along(1, at / ARROWS)]).collect();
    let mut states = vec![0.0; places.len() * dim];
    for (state, place) in states.chunks_mut(dim).zip(&places) {
        (state[axes[0]], state[axes[1]]) = (place[0], place[1]);
    }
    let states = host_tensor(states, &[places.len(), dim], DType::F64, &Device::Cpu)?;
    let field = run.field();
    let velocity = Converted::new(&field, run.sde.as_ref(), Prediction::Velocity).eval(&states, &[t])?;
    let rows = velocity.to_vec2::<f64>()?;
    Ok(places.into_iter().zip(rows.iter().map(|row| axes.map(|axis| -row[axis]))).collect())
}
