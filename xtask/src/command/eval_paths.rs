//! `eval-paths`: how the flow of runs carries noise onto the plane of their data: its angle to the normal, its straightness, its sense.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device};
use sde_core::TimeGrid;
use sde_core::noise::{BatchNoise, Noise};
use sde_data::Split;
use sde_eval::{Approach, Estimate, Plane, approach};
use sde_solvers::prior_sample;
use serde_json::{Value, json};

use crate::build::Use;
use crate::cli::EvalPaths;
use crate::exit::Failure;
use crate::output::{Output, save_record};
use crate::run::Run;
use crate::table::Table;

/// Held-out points whose mean is the height of the plane.
const HELD_OUT: usize = 4096;

/// Runs the command.
pub fn run(args: &EvalPaths, output: Output) -> Result<()> {
    let names: Vec<Option<&Path>> = match args.runs.as_slice() {
        [] => vec![None],
        runs => runs.iter().map(|run| Some(run.as_path())).collect(),
    };
    let (mut records, mut presets) = (Vec::new(), BTreeMap::<String, Vec<Approach>>::new());
    for name in names {
        let run = Run::of_command(name, &args.opening, |_| (), output)?;
        let (plane, found) = measure(&run, args, output)?;
        let mut record = run.record();
        super::sample::merge(
            &mut record,
            json!({
                "command": "eval-paths",
                "seed": args.seed,
                "training_seed": run.seed,
                "steps": args.steps,
                "axis": plane.axis + 1,
                "height": plane.height,
                "paths": found,
            }),
        );
        if args.out.is_none() {
            save_record(&run.path.join("records/eval-paths.json"), &record)?;
        }
        presets.entry(run.preset.name.clone()).or_default().push(found);
        records.push(record);
    }
    let (table, means) = summary(&presets)?;
    let record = match records.as_slice() {
        [only] => only.clone(),
        _ => json!({ "command": "eval-paths", "runs": records, "presets": means }),
    };
    if let Some(file) = &args.out {
        save_record(file, &record)?;
    }
    output.result(table.text(), &record)
}

/// The number of coordinates of a point, for runs whose states are points and nothing else.
fn coordinates(run: &Run) -> Result<usize> {
    let path = run.path.display();
    let &[dim] = run.shape.as_slice() else {
        let text =
            format!("{path}: eval-paths is for points, this run has samples of the shape {:?}", run.shape);
        return Err(Failure::Usage(text).into());
    };
    // A path in space and velocities meets the plane of the data at no angle of its own.
    if run.sde.auxiliary().is_some() {
        let text = format!(
            "{path}: eval-paths is for states that are points, those of this run, of the shape {:?}, hold velocities beside {dim} coordinates; \
             name a run without velocities",
            run.state_shape()?
        );
        return Err(Failure::Usage(text).into());
    }
    Ok(dim)
}

fn measure(run: &Run, args: &EvalPaths, output: Output) -> Result<(Plane, Approach)> {
    let dim = coordinates(run)?;
    let axis = args.axis.unwrap_or(dim);
    if axis > dim {
        return Err(
            Failure::Usage(format!("--axis {axis}: points of this run have {dim} coordinates")).into()
        );
    }
    let height = match args.height {
        Some(height) => height,
        None => mean_height(run, axis - 1, output)?,
    };
    let plane = Plane { axis: axis - 1, height };
    let (sde, span) = (run.sde.as_ref(), run.sde.span());
    let noise = BatchNoise::new(Noise::new(args.seed), 0, 0..args.n as u32);
    let starts = prior_sample(sde, &noise, &[dim], DType::F64, &Device::Cpu)?;
    let grid = TimeGrid::power(span.end, span.sampling, args.steps, 2.0)?;
    Ok((plane, approach(sde, &run.field(), &starts, &grid, plane)?))
}

fn mean_height(run: &Run, axis: usize, output: Output) -> Result<f64> {
    let set = run.preset.data.load(Split::Test, Use::Likelihood, run.seed, output)?.set;
    let indices: Vec<usize> = (0..HELD_OUT.min(set.len())).collect();
    let noise = BatchNoise::new(Noise::new(0), 0, 0..indices.len() as u32);
    let data = set.batch(&indices, &noise)?.x.to_dtype(DType::F64)?;
    Ok(data.narrow(1, axis, 1)?.mean_all()?.to_scalar()?)
}

/// A row for each preset: one run with the error of its paths, several with that of the seeds.
fn summary(presets: &BTreeMap<String, Vec<Approach>>) -> Result<(Table, Value)> {
    let mut table = Table::new(&["preset", "runs", "verticality", "straightness", "sense"]);
    let mut means = Vec::new();
    for (name, found) in presets {
        let of = |f: &dyn Fn(&Approach) -> Estimate| -> Result<Estimate> {
            match found.as_slice() {
                [only] => Ok(f(only)),
                several => Ok(Estimate::mean(&several.iter().map(|a| f(a).value).collect::<Vec<_>>())?),
            }
        };
        let parts = [of(&|a| a.verticality)?, of(&|a| a.straightness)?, of(&|a| a.sense)?];
        let cell = |e: &Estimate| format!("{:.4} ± {:.4}", e.value, e.standard_error.unwrap_or(f64::NAN));
        table.row([name.clone(), found.len().to_string()].into_iter().chain(parts.iter().map(cell)));
        let [verticality, straightness, sense] = parts;
        means.push(json!({
            "preset": name,
            "runs": found.len(),
            "verticality": verticality,
            "straightness": straightness,
            "sense": sense,
        }));
    }
    Ok((table, json!(means)))
}
