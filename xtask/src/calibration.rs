//! A run's field measured on its own training data, for samplers whose variance is estimated.

use anyhow::Result;
use candle_core::{DType, Device};
use sde_core::MomentField;
use sde_core::noise::{BatchNoise, Noise};
use sde_data::Split;
use sde_solvers::Clipping;
use sde_solvers::calibration::{Residual, calibrate};

use crate::build::Use;
use crate::exit::Failure;
use crate::output::Output;
use crate::run::Run;
use crate::sampling::{Calibration, Recipe};

/// Examples measured together.
const BATCH: usize = 100;
/// Examples, unless the configuration says how many.
const EXAMPLES: usize = 1000;

/// What the configured sampler has to know of the field besides, if it has to. A network that knows classes is asked without one.
pub fn of_run<'a>(run: &'a Run, recipe: &Recipe<'_>, output: Output) -> Result<Option<Calibration<'a>>> {
    let (entry, clipping) = (recipe.config.entry()?, clipping(run));
    if entry.wants_moments() {
        let moments: Option<Box<dyn MomentField + 'a>> = Some(Box::new(run.moments()?));
        return Ok(Some(Calibration { residuals: Vec::new(), moments, clipping }));
    }
    if !entry.is_calibrated() {
        return Ok(None);
    }
    if run.classes().is_some() && run.preset.train.label_dropout.is_none() {
        let text = format!(
            "{} measures the network without classes, which this run was not trained for (train.label_dropout)",
            entry.name
        );
        return Err(Failure::Usage(text).into());
    }
    let residuals = measured(run, recipe, output)?;
    Ok(Some(Calibration { residuals, moments: None, clipping }))
}

/// The field measured at the times that steps start from.
fn measured(run: &Run, recipe: &Recipe<'_>, output: Output) -> Result<Vec<Residual>> {
    let set = run.preset.data.load(Split::Train, Use::Training, run.seed, output)?.set;
    let n = recipe.config.calibration.unwrap_or(EXAMPLES).min(set.len());
    let grid = recipe.grid()?;
    let times = &grid.times()[..grid.steps()];
    output.say(format!("measuring the field on {n} examples at {} times", times.len()));
    let noise = Noise::new(run.seed);
    let batch = |number: usize| {
        let indices: Vec<usize> = (number * BATCH..n.min((number + 1) * BATCH)).collect();
        if indices.is_empty() {
            return Ok(None);
        }
        let own = BatchNoise::new(noise, 0, indices.iter().map(|&i| i as u32));
        let x = set.batch(&indices, &own).map_err(sde_core::Error::model)?.x;
        Ok(Some(x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?))
    };
    Ok(calibrate(run.sde.as_ref(), &run.field(), times, &batch, noise)?)
}

/// As published for 256 levels in [-1, 1], scaled to the levels and the range at hand; none for points.
fn clipping(run: &Run) -> Clipping {
    let Some((range, levels)) = run.image_levels() else { return Clipping::NONE };
    let half = 0.5 * range.width();
    let published = Clipping::pixels(255.0 / (f64::from(levels) - 1.0));
    let cap = published.cap.map(|(steps, deviation)| (steps, half * deviation));
    Clipping { half_range: Some(half), cap, ..published }
}
