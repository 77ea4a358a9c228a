//! The path integral samplers of `target`: of a trained run, trained on the spot, or by the best control where that is known.

use anyhow::Result;
use sde_core::target::{FollmerDrift, TargetSampler};
use sde_solvers::PathIntegral;
use serde_json::{Value, json};

use super::{Chosen, TargetConfig};
use crate::cli::{DeviceArg, TargetArgs, Train};
use crate::command::fit_preset;
use crate::config::Source;
use crate::device;
use crate::exit::Failure;
use crate::method::path_integral::{CHUNK, PathIntegralPreset, open, target_of};
use crate::output::Output;

/// Their names.
pub const NAMES: &[&str] = &["pis-grad", "pis-nn", "pis-gt"];

/// The target of `args`, or of the run of `--run`, which knows it already.
///
/// # Errors
/// Where `args` tell something else than the run.
pub fn target(args: &TargetArgs) -> Result<TargetConfig> {
    let asked = args.target();
    let Some(run) = args.trained.first() else { return Ok(asked) };
    let trained = target_of(run)?;
    if asked.name != trained.name {
        let text =
            format!("--run {}: a run for the target {}, not {}", run.display(), trained.name, asked.name);
        return Err(Failure::Usage(text).into());
    }
    let differs = [
        ("--dim", asked.dim.is_some() && asked.dim != trained.dim),
        ("--variance", asked.variance.is_some() && asked.variance != trained.variance),
        ("--points", asked.points.is_some() && asked.points != trained.points),
        ("--vae", asked.vae.is_some() && asked.vae != trained.vae),
        ("--image", asked.image.is_some() && asked.image != trained.image),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        None => Ok(trained),
        Some((what, _)) => {
            let text = format!(
                "--run {}: {what} is another than the run was trained for; leave it out, or train another run",
                run.display()
            );
            Err(Failure::Usage(text).into())
        }
    }
}

/// The samplers of `args`, and what the record says of them.
///
/// # Errors
/// For a run of another target, and a target for which there is no preset or no best control.
pub fn samplers(
    args: &TargetArgs,
    target: &TargetConfig,
    chosen: &Chosen,
    output: Output,
) -> Result<(Vec<Box<dyn TargetSampler>>, Value)> {
    if let Some(key) = args.sets.iter().find(|set| set.starts_with("target.")) {
        let text =
            format!("--set {key}: the target is told by options of its own, such as --dim or --variance");
        return Err(Failure::Usage(text).into());
    }
    if args.sampler == "pis-gt" {
        return best(args, chosen);
    }
    let mut paths = args.trained.clone();
    if paths.is_empty() {
        paths.push(fit_preset(&training(args), output)?.0);
    } else if let Some(set) = args.sets.first() {
        let text = format!("--set {set}: a run of --run is trained already; set it in `train`");
        return Err(Failure::Usage(text).into());
    } else if args.runs < paths.len() {
        let text = format!("--runs {}: fewer than the {} trained ones of --run", args.runs, paths.len());
        return Err(Failure::Usage(text).into());
    }
    let trained_now = args.trained.is_empty();
    let device = device::select("cpu", output)?;
    let mut samplers = Vec::new();
    let mut origins = Vec::new();
    for path in &paths {
        let opened = open(path, &device, output)?;
        if opened.sampler.name() != args.sampler || !trained_now && opened.preset.target != *target {
            let text = format!(
                "--run {}: this is {} for another target, or the same with other settings, than {} for {}",
                path.display(),
                opened.sampler.name(),
                args.sampler,
                args.name
            );
            return Err(Failure::Usage(text).into());
        }
        origins.push(opened.origin);
        samplers.push(opened.sampler);
    }
    Ok((samplers, json!({ "runs": origins })))
}

/// The training that comes before, by the preset of the target.
fn training(args: &TargetArgs) -> Train {
    let mut sets = vec![format!("net.gradient={}", args.sampler == "pis-grad")];
    if let Some(points) = &args.points {
        sets.push(format!("target.points={}", points.display()));
    }
    sets.extend(args.vae.iter().map(|run| format!("target.vae={}", run.display())));
    sets.extend(args.image.map(|image| format!("target.image={image}")));
    sets.extend(args.dim.map(|dim| format!("target.dim={dim}")));
    sets.extend(args.variance.map(|variance| format!("target.variance={variance}")));
    sets.extend(args.sets.iter().cloned());
    Train {
        preset: format!("pis-{}", args.name),
        steps: None,
        seed: Some(args.seed),
        sets,
        out: None,
        resume: false,
        from: None,
        dry_run: false,
        device: DeviceArg { name: "cpu".into() },
    }
}

/// The best control of a mixture, on the diffusion of its preset.
fn best(args: &TargetArgs, chosen: &Chosen) -> Result<(Vec<Box<dyn TargetSampler>>, Value)> {
    let Some(mixture) = &chosen.mixture else {
        let text =
            format!("pis-gt: the best control is known for mixtures of Gaussians, and {} is none", args.name);
        return Err(Failure::Usage(text).into());
    };
    let mut source = Source::find(&format!("pis-{}", args.name))?;
    args.sets.iter().try_for_each(|set| source.set(set))?;
    let preset: PathIntegralPreset = source.parse()?;
    let process = preset.process;
    let control = FollmerDrift::new(mixture, process.noise, process.horizon)?;
    let sampler = PathIntegral::new("pis-gt", preset.bridge()?, control, CHUNK)?;
    Ok((vec![Box::new(sampler)], serde_json::to_value(process)?))
}
