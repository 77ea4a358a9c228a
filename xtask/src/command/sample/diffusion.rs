//! Samples of a drift and a score: by the backward chain, completed, or from pictures that were carried to noise.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::process::Vp;
use sde_core::rows_of;
use sde_solvers::prior_sample;
use serde_json::json;

use super::save::{is_npy, save};
use super::{addresses, merge};
use crate::cli::Sample;
use crate::exit::Failure;
use crate::files::write_tensor;
use crate::method::diffflow::Diffusion;
use crate::output::{Output, save_record};
use crate::pictures;
use crate::provenance::revision;
use crate::run::Run;

/// Refuses options that a drift and a score have no use for.
pub fn check(args: &Sample, chain: bool) -> Result<()> {
    let (guide, edit) = (&args.guide, &args.edit);
    let of_chain = !edit.encode.is_empty() || edit.inpaint.is_some();
    let never = [
        ("--class", guide.class.is_some()),
        ("--guidance", guide.guidance.is_some()),
        ("--clip and --threshold", guide.clip || guide.threshold.is_some()),
        ("--colourise", edit.colourise.is_some()),
        ("--enlarge", edit.enlarge.is_some()),
        ("--by and --resample", edit.by.is_some() || edit.resample.is_some()),
        ("--image", edit.image.is_some()),
        ("--interpolate", edit.interpolate.is_some()),
        ("--times", args.density.times.is_some()),
        ("--eta", args.eta.is_some()),
        ("--grid", args.grid.is_some()),
        ("--no-denoise", args.no_denoise),
        ("--init and --noise with the chain", chain && (args.init.is_some() || args.noise.is_some())),
        ("--inpaint and --encode without the chain (--sampler em)", !chain && of_chain),
    ];
    match never.iter().find(|(_, given)| *given) {
        Some((option, _)) => {
            Err(Failure::Usage(format!("{option}: not for a run of a drift and a score")).into())
        }
        None => Ok(()),
    }
}

/// What was drawn.
struct Made {
    x: Tensor,
    latents: Option<Tensor>,
    round_trip: Option<f64>,
}

/// Draws by the backward chain, and writes what was drawn.
pub fn run(args: &Sample, run: &Run, diffusion: &Diffusion, output: Output) -> Result<()> {
    let sampler = &run.preset.sampler;
    let steps = args.steps.unwrap_or(sampler.steps);
    let made = make(args, run, diffusion, (steps, sampler.lambda))?;
    let out = args.out.clone().unwrap_or_else(|| run.path.join("samples").join(format!("em-{steps}")));
    let mut files = save(run, &made.x, &out, output)?;
    if let Some(latents) = &made.latents {
        let path = beside(&out);
        write_tensor(&path, latents)?;
        files.push(path.display().to_string());
    }
    let mut record = run.record();
    let n = made.x.dim(0)?;
    merge(
        &mut record,
        json!({
            "command": "sample",
            "sampler": "em",
            "lambda": sampler.lambda,
            "times": diffusion.grid(steps)?.times(),
            "n": n,
            "seed": args.seed,
            "seeds": args.seeds,
            "nfe": steps,
            "inpaint": args.edit.inpaint,
            "encode": args.edit.encode,
            "round_trip_rms": made.round_trip,
            "code_revision": revision(),
            "files": files,
        }),
    );
    let place = if is_npy(&out) { run.path.join("records/sample.json") } else { out.join("record.json") };
    save_record(&place, &record)?;
    let round_trip = made.round_trip.map_or_else(String::new, |rms| format!(", round trip {rms:.4} rms"));
    let text = format!("{n} samples, {steps} calls of each network{round_trip}: {}", files.join(", "));
    output.result(text, &record)
}

fn beside(out: &Path) -> std::path::PathBuf {
    if is_npy(out) { out.with_extension("latents.npy") } else { out.join("latents.npy") }
}

fn make(args: &Sample, run: &Run, diffusion: &Diffusion, (steps, lambda): (usize, f64)) -> Result<Made> {
    let (fields, grid, noise) = (diffusion.fields()?, diffusion.grid(steps)?, Noise::new(args.seed));
    if !args.edit.encode.is_empty() {
        let images = pictures::images(run, &args.edit.encode)?;
        let noise = BatchNoise::new(noise, 0, 0..args.edit.encode.len() as u32);
        let latents = fields.forward(&grid, &images, &noise)?.pop().unwrap_or_else(|| images.clone());
        let x = fields.sample(&grid, lambda, &latents, &noise)?.x;
        let round_trip = (&x - &images)?.sqr()?.mean_all()?.to_scalar::<f64>()?.sqrt();
        return Ok(Made { x, latents: Some(latents), round_trip: Some(round_trip) });
    }
    let wanted = addresses(args, None)?;
    let Some(files) = &args.edit.inpaint else {
        let x = diffusion.draw((steps, lambda), &run.shape, noise, &wanted, args.batch)?;
        return Ok(Made { x, latents: None, round_trip: None });
    };
    let [mask, image] = files.as_slice() else {
        return Err(Failure::Usage("--inpaint: expected MASK and IMAGE".into()).into());
    };
    let mask = pictures::mask(run, mask)?;
    let image = pictures::images(run, std::slice::from_ref(image))?;
    let parts = wanted.chunks(args.batch).map(|part| {
        let copies = rows_of(&image, &vec![0; part.len()])?;
        let noise = BatchNoise::new(noise, 0, part.iter().copied());
        let prior = prior_sample(&Vp::STANDARD, &noise, &run.shape, DType::F64, &Device::Cpu)?;
        Ok(fields.complete(&grid, lambda, (&copies, &mask), &prior, &noise)?)
    });
    let x = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?;
    Ok(Made { x, latents: None, round_trip: None })
}
