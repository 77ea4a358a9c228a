//! `bench sampler`: what each sampler reaches in few network calls, without FID.
//!
//! The error of a deterministic sampler is the root-mean-square distance, for each entry of a state, from where the probability flow itself ends
//! (solved to a tight tolerance from the same starts), on the best of several time grids, as published tables choose it; an adaptive one is given the tolerance at which
//! it takes the calls asked for. Every sampler
//! is measured by the centred sliced W₂² between its denoised ends and the data, too.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, Table 2 and section 3 (Δ_p).

mod measure;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::{EmpiricalField, Field, LinearSde, lift};
use sde_data::Split;
use sde_solvers::catalog::{self, Entry};
use serde_json::{Value, json};

use crate::build::Use;
use crate::cli::BenchSampler;
use crate::config::{Preset, Source};
use crate::device;
use crate::exit::Failure;
use crate::output::{Output, save_record};
use crate::plot::{Curve, error_curves};
use crate::provenance::revision;
use crate::run::Run;
use crate::table::Table;
use measure::{Cell, Law};

/// Tolerance of the reference: the exact field allows more than a network in f32.
const EXACT: f64 = 1e-9;
const OF_NETWORK: f64 = 1e-5;

/// The samplers drawn in the picture, the others would crowd it.
const DRAWN: [&str; 9] =
    ["ddim", "tab1", "tab3", "rho-ab3", "dpm++-2m", "unipc2", "rho-heun2", "rho-rk4", "euler"];

/// Runs the suite.
pub fn run(args: &BenchSampler, output: Output) -> Result<()> {
    match &args.run {
        Some(folder) => {
            let device = device::select(&args.device.name, output)?;
            let run = Run::open(Some(folder), None, &args.sets, |_| (), &device, output)?;
            let points = points(&run.preset, args, output)?;
            let field = run.field();
            let law = law(&points, run.sde.as_ref(), &field, OF_NETWORK, args)?;
            report(&law, &run.preset, &run.record(), args, output)
        }
        None => {
            let mut source = Source::find(&args.preset)?;
            args.sets.iter().try_for_each(|set| source.set(set))?;
            let preset = source.score()?;
            let (points, sde) = (points(&preset, args, output)?, preset.process.build()?);
            let field = EmpiricalField::new(&lift(sde.as_ref(), &points)?, sde.as_ref())?;
            let law = law(&points, sde.as_ref(), &field, EXACT, args)?;
            report(&law, &preset, &json!({ "field": "exact" }), args, output)
        }
    }
}

/// The first examples of the test split, not dequantised.
fn points(preset: &Preset, args: &BenchSampler, output: Output) -> Result<Tensor> {
    let mut data = preset.data.clone();
    data.dequantise = false;
    let set = data.load(Split::Test, Use::Training, args.seed, output)?.set;
    let indices: Vec<usize> = (0..args.points.min(set.len())).collect();
    let noise = BatchNoise::new(Noise::new(args.seed), 0, 0..indices.len() as u32);
    Ok(set.batch(&indices, &noise)?.x.to_dtype(DType::F64)?.to_device(&Device::Cpu)?)
}

fn law<'a>(
    points: &'a Tensor,
    sde: &'a dyn LinearSde,
    field: &'a dyn Field,
    tolerance: f64,
    args: &BenchSampler,
) -> Result<Law<'a>> {
    let noise = BatchNoise::new(Noise::new(args.seed), 0, 0..args.starts);
    Law::new(points, sde, field, noise, tolerance)
}

/// The samplers asked for.
fn entries(args: &BenchSampler) -> Result<Vec<&'static Entry>> {
    if args.only.is_empty() {
        return Ok(catalog::all().filter(|entry| !entry.is_adaptive()).collect());
    }
    let find = |name: &String| {
        catalog::find(name).ok_or_else(|| {
            Failure::Usage(format!("--only {name}: no such sampler; `samplers` lists all")).into()
        })
    };
    args.only.iter().map(find).collect()
}

/// Measures, and says what was found.
fn report(law: &Law<'_>, preset: &Preset, origin: &Value, args: &BenchSampler, output: Output) -> Result<()> {
    let mut headers = vec!["sampler".to_owned()];
    headers.extend(args.nfe.iter().map(|n| format!("{n} calls")));
    let mut errors = Table::new(&headers);
    let mut distances = Table::new(&headers);
    let (mut records, mut curves) = (Vec::new(), Vec::new());
    for entry in entries(args)? {
        output.say(entry.name);
        let cells: Vec<Option<Cell>> =
            args.nfe.iter().map(|&nfe| law.best(entry, &preset.sampler, nfe)).collect::<Result<_>>()?;
        if cells.iter().all(Option::is_none) {
            output.say(format!("{} is not for this process", entry.name));
            continue;
        }
        let text = |cell: &Option<Cell>, f: fn(&Cell) -> String| cell.as_ref().map_or("–".into(), f);
        let name = || std::iter::once(entry.name.to_owned());
        if cells.iter().flatten().any(|cell| cell.error.is_some()) {
            errors.row(name().chain(cells.iter().map(|cell| text(cell, Cell::error_text))));
        }
        distances.row(name().chain(cells.iter().map(|cell| text(cell, Cell::distance_text))));
        if DRAWN.contains(&entry.name) || (1..=DRAWN.len()).contains(&args.only.len()) {
            let points = cells.iter().flatten().filter_map(|c| Some((c.nfe as f64, c.error.as_ref()?.value)));
            curves.push(Curve { name: entry.name, points: points.collect() });
        }
        let cells: Vec<Value> = cells.iter().flatten().map(Cell::record).collect();
        records.push(json!({ "sampler": entry.name, "cells": cells }));
    }
    let record = json!({
        "command": "bench sampler",
        "preset": preset.name,
        "process": preset.process,
        "origin": origin,
        "points": law.points.dim(0)?,
        "starts": args.starts,
        "seed": args.seed,
        "reference": { "sampler": "rk45", "tolerance": law.tolerance, "mean_nfe": law.reference_nfe },
        "samplers": records,
        "tables": [errors.record("error"), distances.record("sliced W2 squared, in 1e-3")],
        "code_revision": revision(),
    });
    if let Some(path) = &args.plot {
        error_curves(&curves, &format!("{}: distance from the flow's end", preset.name), path)?;
    }
    if let Some(path) = &args.out {
        save_record(path, &record)?;
    }
    let print = |table: &Table| if args.markdown { table.markdown() } else { table.text() };
    let text = format!(
        "Error: root mean square to the end of the flow, best grid (t k: t^k, r: rho^7, l: log rho)\n\n{}\n\n\
         Sliced W2 squared to the data, in 1e-3, with standard error\n\n{}",
        print(&errors),
        print(&distances)
    );
    output.result(text, &record)
}
