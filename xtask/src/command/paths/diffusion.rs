//! The trajectories of a drift and a score: data on its way to noise, and noise on the backward chain's way to data, at the same times.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::process::Vp;
use sde_data::{Picture, Range};
use sde_solvers::prior_sample;

use super::{axes, examples, names, window};
use crate::cli::Paths;
use crate::method::diffflow::Diffusion;
use crate::output::Output;
use crate::plot::{Panel, Place, Sections};
use crate::run::Run;

/// Points that are followed, and lines that are drawn of them.
const POINTS: usize = 1500;
const LINES: usize = 40;

/// States forwards and backwards at the times shown, data first, and the steps between two of them.
fn states(
    run: &Run,
    diffusion: &Diffusion,
    (n, args): (usize, &Paths),
    output: Output,
) -> Result<([Vec<Tensor>; 2], Vec<f64>, usize)> {
    let every = diffusion.process.steps().div_ceil(args.count - 1);
    let (fields, grid) = (diffusion.fields()?, diffusion.grid(every * (args.count - 1))?);
    let noise = Noise::new(args.seed);
    let data = examples(run, n, noise, output)?;
    let addresses = BatchNoise::new(noise, 0, 0..data.dim(0)? as u32);
    let prior = prior_sample(&Vp::STANDARD, &addresses, &run.shape, DType::F64, &Device::Cpu)?;
    let forward = fields.forward(&grid, &data, &addresses)?;
    let mut backward = fields.backward(&grid, run.preset.sampler.lambda, &prior, &addresses)?;
    backward.reverse();
    let times = grid.times().iter().rev().copied().collect();
    Ok(([forward, backward], times, every))
}

/// Panels of points: each time forwards, each time backwards, with some of the ways in the first of each.
pub fn section(run: &Run, diffusion: &Diffusion, args: &Paths, file: &Path, output: Output) -> Result<usize> {
    let names = names(run)?;
    let axes = axes(args, run.shape[0], &names)?;
    let (both, times, every) = states(run, diffusion, (args.n.unwrap_or(POINTS), args), output)?;
    let places = |x: &Tensor| -> Result<Vec<Place>> {
        Ok(x.to_vec2::<f64>()?.iter().map(|row| axes.map(|axis| row[axis])).collect())
    };
    let mut panels = Vec::new();
    let mut all = Vec::new();
    for (states, way) in both.iter().zip(["forwards", "backwards"]) {
        let along = states.iter().map(places).collect::<Result<Vec<_>>>()?;
        let lines = 0..LINES.min(along[0].len());
        let mut paths: Vec<Vec<Place>> =
            lines.map(|i| along.iter().map(|places| places[i]).collect()).collect();
        if way == "backwards" {
            paths.iter_mut().for_each(|path| path.reverse());
        }
        panels.push(Panel { title: format!("{way}: some paths"), paths, ..Panel::default() });
        for (dots, t) in along.iter().zip(&times).step_by(every) {
            panels.push(Panel {
                title: format!("{way}, t = {t:.3}"),
                dots: dots.clone(),
                ..Panel::default()
            });
        }
        all.extend(along.into_iter().flatten());
    }
    let title = format!("{}: data to noise, and noise to data", run.preset.name);
    let axes = axes.map(|axis| names[axis].clone());
    Sections { title, axes, window: window(all.iter()), panels }.save(file)?;
    Ok(times.len() - 1)
}

/// A strip of images: a row for each example on its way to noise, then a row for each way back.
pub fn strip(
    run: &Run,
    diffusion: &Diffusion,
    (args, range): (&Paths, Range),
    file: &Path,
    output: Output,
) -> Result<usize> {
    let (both, times, every) = states(run, diffusion, (args.n.unwrap_or(6), args), output)?;
    let mut cells = Vec::new();
    for states in &both {
        for i in 0..states[0].dim(0)? {
            for state in states.iter().step_by(every) {
                cells.push(state.narrow(0, i, 1)?);
            }
        }
    }
    let side = *run.shape.last().unwrap_or(&1);
    Picture::sheet(&Tensor::cat(&cells, 0)?, range, args.count, (64 / side).max(1))?.save(file)?;
    Ok(times.len() - 1)
}
