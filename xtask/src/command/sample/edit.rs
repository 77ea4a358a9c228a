//! What samples are made of: a measurement they have to agree with, an image to vary, latents to pass through.

use std::path::PathBuf;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Noise};
use sde_core::{Field, lift};
use sde_solvers::edit::slerp;
use sde_solvers::guidance::CleanGuided;
use sde_solvers::inverse::{Grey, Mask, Measurement, Pool, Reconstruction, Spread};
use sde_solvers::{Chart, ProbabilityFlow, prior_sample};
use sde_train::hash::sha256;
use serde_json::{Value, json};

use super::guide;
use crate::cli::{Edit, Sample};
use crate::exit::Failure;
use crate::pictures;
use crate::run::Run;
use crate::sampling::{Known, Recipe, Start};

/// The part of a sample that the options make known.
pub fn known(run: &Run, options: &Edit) -> Result<Option<Known>> {
    let one = |path: &PathBuf| std::slice::from_ref(path).to_vec();
    let (measurement, y): (Box<dyn Measurement>, Tensor) =
        match (&options.inpaint, &options.colourise, &options.enlarge) {
            (Some(files), ..) => {
                let [mask, image] = files.as_slice() else { return Ok(None) };
                let image = pictures::images(run, &one(image))?;
                let known = pictures::mask(run, mask)?.broadcast_as(image.dims())?.contiguous()?;
                let mask = Mask::new(&known.squeeze(0)?)?;
                let y = mask.apply(&image)?;
                (Box::new(mask), y)
            }
            (None, Some(image), _) => {
                if run.shape.first() == Some(&1) {
                    return Err(Failure::Usage("--colourise: the run's images are grey".into()).into());
                }
                let grey = Grey { channels: run.shape.first().copied().unwrap_or(1) };
                let y = grey.apply(&pictures::images(run, &one(image))?)?;
                (Box::new(grey), y)
            }
            (None, None, Some(image)) => {
                let small = pictures::small_image(run, image)?;
                let side = run.shape[1] / small.dim(2)?;
                (Box::new(Pool { side }), small)
            }
            (None, None, None) if options.by.is_some() || options.resample.is_some() => {
                let text = "--by and --resample: nothing is known; give --inpaint, --colourise or --enlarge";
                return Err(Failure::Usage(text.into()).into());
            }
            (None, None, None) => return Ok(None),
        };
    if run.sde.auxiliary().is_some() {
        let text = "--inpaint, --colourise and --enlarge: not on a process with velocities, of which nothing is known; take a run of another process";
        return Err(Failure::Usage(text.into()).into());
    }
    if run.sde.signal(run.sde.span().end).as_scalar().is_none() {
        let text = "--inpaint, --colourise and --enlarge: for processes that treat all coordinates alike, which this run's does not; take a run of another process";
        return Err(Failure::Usage(text.into()).into());
    }
    let replacements = match (options.by.as_deref(), options.resample) {
        (None | Some("replacement"), times) => times.unwrap_or(1),
        (Some("gradient"), None) => 0,
        (Some("gradient"), Some(_)) => {
            let text = "--resample is for --by replacement: steps are not run again with --by gradient";
            return Err(Failure::Usage(text.into()).into());
        }
        (Some(other), _) => {
            let text = format!("--by {other}: expected replacement or gradient");
            return Err(Failure::Usage(text).into());
        }
    };
    Ok(Some(Known { measurement, y, replacements }))
}

/// The field, guided towards what is known unless that is put into its place.
pub fn guided<'a>(run: &'a Run, known: Option<&'a Known>, field: Box<dyn Field + 'a>) -> Box<dyn Field + 'a> {
    let Some(known) = known.filter(|known| known.replacements == 0) else { return field };
    let sde = run.sde.as_ref();
    // Values of images have about the variance of their range's half squared.
    let variance = run.image_levels().map_or(1.0, |(range, _)| (0.5 * range.width()).powi(2));
    let likelihood = Reconstruction::new(
        known.measurement.as_ref(),
        known.y.clone(),
        sde,
        Spread::OfData { variance },
        0.0,
    );
    Box::new(CleanGuided::new(field, sde, likelihood, 1.0))
}

/// What the options start from, and how many samples that makes, where they say.
pub struct From {
    /// The start.
    pub start: Start,
    /// The number of samples, if the options fix it.
    pub samples: Option<usize>,
    /// Images that were encoded, to compare what comes back with.
    pub images: Option<Tensor>,
    /// Latents to keep.
    pub latents: Option<Tensor>,
}

impl From {
    const PRIOR: Self = Self { start: Start::Prior, samples: None, images: None, latents: None };

    /// The root mean square of what encoding and decoding changed, in levels if that is what `x` is.
    pub fn round_trip(&self, run: &Run, options: &Edit, x: &Tensor) -> Result<Option<f64>> {
        let Some(images) = self.images.as_ref().filter(|_| options.interpolate.is_none()) else {
            return Ok(None);
        };
        let images = if x.dtype() == DType::U8 { run.encoding.quantise(images)? } else { images.clone() };
        let gap = (x.to_dtype(DType::F64)? - images.to_dtype(DType::F64)?)?;
        Ok(Some(gap.sqr()?.mean_all()?.to_scalar::<f64>()?.sqrt()))
    }
}

/// Where samples start; `addresses` are those of the samples named on the command line.
pub fn start(run: &Run, args: &Sample, recipe: &Recipe<'_>, addresses: &[u32]) -> Result<From> {
    let options = &args.edit;
    if let Some(image) = &options.image {
        if !(options.strength > 0.0 && options.strength <= 1.0) {
            let text = format!("--strength {}: expected above 0, at most 1", options.strength);
            return Err(Failure::Usage(text).into());
        }
        let image = pictures::images(run, std::slice::from_ref(image))?;
        let t = recipe.time_of_strength(options.strength)?;
        return Ok(From { start: Start::Noised(image, t), ..From::PRIOR });
    }
    if options.encode.is_empty() && options.interpolate.is_none() {
        return Ok(From::PRIOR);
    }
    let one_class = args.guide.class.as_deref().is_some_and(|class| class != "all");
    if run.classes().is_some() && !one_class {
        let text =
            "--encode and --interpolate on a run that knows classes: name the one of all pictures, --class K";
        return Err(Failure::Usage(text.into()).into());
    }
    let sampler = &run.preset.sampler;
    if sampler.entry()?.draws_noise(&sampler.settings()?) {
        let text =
            format!("{}: latents are carried by a deterministic sampler, such as tab3 or rk45", sampler.name);
        return Err(Failure::Usage(text).into());
    }
    let images = if options.encode.is_empty() { None } else { Some(pictures::images(run, &options.encode)?) };
    let latents = match &images {
        Some(images) => {
            let places: Vec<u32> = (0..images.dim(0)? as u32).collect();
            let guided = guide::field(run, &args.guide, &places)?;
            encode(run, recipe, guide::clipped(run, &args.guide, guided.field)?.as_ref(), images)?
        }
        None => {
            let noise = BatchNoise::new(Noise::new(args.seed), 0, addresses.iter().copied());
            prior_sample(run.sde.as_ref(), &noise, &run.state_shape()?, DType::F64, &Device::Cpu)?
        }
    };
    let path = match options.interpolate {
        Some(frames) => path(&latents, frames)?,
        None => latents.clone(),
    };
    let samples = Some(path.dim(0)?);
    Ok(From { start: Start::States(path), samples, images, latents: Some(latents) })
}

/// Data carried up by the probability flow; velocities, where there are any, from rest.
fn encode(run: &Run, recipe: &Recipe<'_>, field: &dyn Field, images: &Tensor) -> Result<Tensor> {
    let (sde, sampler) = (run.sde.as_ref(), &run.preset.sampler);
    let chart = sampler.chart()?.unwrap_or_else(|| Chart::natural(sde));
    let flow = ProbabilityFlow::new(sde, field, chart);
    let grid = recipe.grid()?;
    // A grid may end at the data, where the network was not trained.
    let (bottom, top) = (grid.stop().max(sde.span().sampling), grid.start());
    let solution = flow.solve(&sampler.adaptive(), &lift(sde, images)?, bottom, top)?;
    if let Some((sample, report)) = solution.unfinished().next() {
        let text = format!("image {sample} was carried up to t = {} only: {:?}", report.t, report.outcome);
        return Err(Failure::NonFinite(text).into());
    }
    Ok(solution.y)
}

/// From each state to the next in `frames` pictures, the ends among them.
fn path(states: &Tensor, frames: usize) -> Result<Tensor> {
    let n = states.dim(0)?;
    if n < 2 || frames < 2 {
        let text = format!(
            "--interpolate {frames} between {n} latents: expected two of each at least (--seeds A-B, --encode A B)"
        );
        return Err(Failure::Usage(text).into());
    }
    let mut points = vec![states.narrow(0, 0, 1)?];
    for i in 0..n - 1 {
        let (a, b) = (states.narrow(0, i, 1)?, states.narrow(0, i + 1, 1)?);
        for frame in 1..frames {
            points.push(slerp(&a, &b, frame as f64 / (frames - 1) as f64)?);
        }
    }
    Ok(Tensor::cat(&points, 0)?)
}

/// A fingerprint of what samples are made of beyond the options: pictures may change under their names.
pub fn fingerprint(known: Option<&Known>, start: &Start) -> Result<Value> {
    let of = |x: &Tensor| -> Result<String> {
        let values = x.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        Ok(sha256(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()))
    };
    let start = match start {
        Start::Prior => Value::Null,
        Start::Noised(image, t) => json!([of(image)?, t]),
        Start::States(states) => json!(of(states)?),
    };
    let known = match known {
        None => Value::Null,
        // y, and what the measurement makes of ones: a mask has no other name.
        Some(known) => json!([of(&known.y)?, of(&known.measurement.adjoint(&known.y.ones_like()?)?)?]),
    };
    Ok(json!({ "start": start, "known": known }))
}

/// The options as they stand in a record; null where there are none.
pub fn record(options: &Edit) -> Value {
    let path = |file: &PathBuf| file.display().to_string();
    let of = |files: &[PathBuf]| files.iter().map(path).collect::<Vec<_>>();
    let by = json!({ "by": options.by.as_deref().unwrap_or("replacement"), "resample": options.resample });
    match options {
        Edit { inpaint: Some(files), .. } => json!({ "inpaint": of(files), "known": by }),
        Edit { colourise: Some(file), .. } => json!({ "colourise": path(file), "known": by }),
        Edit { enlarge: Some(file), .. } => json!({ "enlarge": path(file), "known": by }),
        Edit { image: Some(file), strength, .. } => json!({ "image": path(file), "strength": strength }),
        Edit { encode, interpolate, .. } if !encode.is_empty() || interpolate.is_some() => {
            json!({ "encode": of(encode), "interpolate": interpolate })
        }
        _ => Value::Null,
    }
}
