//! Samples of a known density by its exact field.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device};
use sde_core::OracleField;
use sde_core::noise::{BatchNoise, Noise};
use sde_solvers::{Clipping, prior_sample};
use serde_json::json;

use super::{
    OracleSettings, addresses, configure, exact_field, explicit_times, recorded, sampler_record, states,
};
use crate::cli::Sample;
use crate::files::write_tensor;
use crate::oracle;
use crate::output::Output;
use crate::sampling::{Calibration, Recipe};

/// Runs the command on the density in `file`.
pub fn run(args: &Sample, file: &Path, output: Output) -> Result<()> {
    let settings =
        OracleSettings::resolve(&args.density, &args.opening.sets, |source| configure(args, source))?;
    let sde = settings.process.build()?;
    let data = oracle::read(file)?.lift(sde.as_ref())?;
    let times = explicit_times(args.density.times.as_deref())?;
    let recipe = Recipe::new(sde.as_ref(), &settings.sampler, times.as_ref());
    let calibration = recipe.config.entry()?.wants_moments().then(|| Calibration {
        residuals: Vec::new(),
        moments: Some(Box::new(OracleField::noise(&data, sde.as_ref()))),
        clipping: Clipping::NONE,
    });
    let recipe = Recipe { calibration: calibration.as_ref(), ..recipe };
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
    let summary = format!("{} samples, {} network calls each", drawn.nfe.len(), drawn.nfe_text());
    let place = match &args.out {
        Some(out) => format!(": {}", out.display()),
        None => " (not kept; --out FILE.npy does)".into(),
    };
    output.result(summary + &place, &record)
}
