//! What is measured: samples of a run, drawn for the purpose, or pictures that are there.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::build::data::IMAGE_SETS;
use crate::calibration;
use crate::cli::EvalFid;
use crate::command::sample::guide::{self, Guided};
use crate::command::sample::{Work, merge};
use crate::config::Source;
use crate::device;
use crate::exit::Failure;
use crate::gallery::Gallery;
use crate::output::Output;
use crate::run::{Run, locate};
use crate::sampling::{Drawn, Recipe};
use crate::stash::Stash;

/// Samples of a run, if nothing else was asked for.
const SAMPLES: usize = 50_000;

/// One side of a comparison.
pub struct Subject {
    /// What it is called.
    name: String,
    kind: Kind,
    record: Value,
}

enum Kind {
    Pictures(Gallery),
    Run(Box<Run>, usize, Option<Stash>),
}

impl Subject {
    /// Finds it; samples are drawn later.
    pub fn open(args: &EvalFid, output: Output) -> Result<Self> {
        let named = args.source.as_deref();
        let is_set = named.is_some_and(|s| IMAGE_SETS.contains(&s.split(':').next().unwrap_or(s)));
        let run = if is_set { None } else { locate(named.map(Path::new)).ok() };
        match (named, run) {
            (Some(source), None) => {
                refuse_of_runs(args, source)?;
                let gallery = Gallery::open(source, args.n, &args.features, output)?;
                let split = gallery.split.map(|split| split.name());
                let record =
                    json!({ "source": gallery.name, "split": split, "pictures_sha256": gallery.sha256()? });
                Ok(Self { name: source.into(), kind: Kind::Pictures(gallery), record })
            }
            (named, _) => {
                let device = device::select(&args.features.device.name, output)?;
                let (path, weights) = (named.map(Path::new), args.weights.as_deref());
                let run = Run::open(path, weights, &args.sets, |s| configure(args, s), &device, output)?;
                if run.image_levels().is_none() || run.shape.len() != 3 {
                    let text = format!(
                        "{}: its samples of shape {:?} are no pictures; `eval` compares points",
                        run.path.display(),
                        run.shape
                    );
                    return Err(Failure::Usage(text).into());
                }
                let (name, record) = (run.path.display().to_string(), run.record());
                Ok(Self { name, kind: Kind::Run(Box::new(run), args.n.unwrap_or(SAMPLES), None), record })
            }
        }
    }

    /// The number of its pictures.
    pub fn len(&self) -> usize {
        match &self.kind {
            Kind::Pictures(gallery) => gallery.len(),
            Kind::Run(_, n, _) => *n,
        }
    }

    /// Its pictures; those of a run are drawn now.
    pub fn gallery(&mut self, args: &EvalFid, output: Output) -> Result<Gallery> {
        match &mut self.kind {
            Kind::Pictures(gallery) => Ok(gallery.clone()),
            Kind::Run(run, n, kept) => {
                let (stash, record) = draw(run, *n, args, output)?;
                let gallery =
                    Gallery::of_levels(&run.path.display().to_string(), &stash.rows()?, run.encoding)?;
                *kept = Some(stash);
                merge(&mut self.record, record);
                Ok(gallery)
            }
        }
    }

    /// What a record says of it.
    pub fn record(&self) -> Value {
        self.record.clone()
    }

    /// What it is called once it is measured.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Pictures(gallery) => format!("{} pictures of {}", gallery.len(), self.name),
            Kind::Run(run, n, _) => {
                let nfe = &self.record["nfe"];
                format!(
                    "{n} samples of {} ({}, {nfe} network calls each)",
                    self.name, run.preset.sampler.name
                )
            }
        }
    }

    /// Where its record belongs: a name that says how samples were drawn and what they were compared with. A record of the same
    /// settings that is there is added to; one of others is left alone.
    pub fn place(&self, record: &Value, reference: &str) -> Option<PathBuf> {
        let Kind::Run(run, n, _) = &self.kind else { return None };
        let (sampler, layer) = (&run.preset.sampler, record["space"]["layer"].as_str().unwrap_or_default());
        let against = Path::new(reference).file_stem().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let against: String = against.chars().map(plain).collect();
        let name = format!("fid-{}-{}-{layer}-{n}-{against}", sampler.name, sampler.steps);
        let folder = run.path.join("records");
        let places = (1..).map(|k| if k == 1 { name.clone() } else { format!("{name}-{k}") });
        let mut places = places.map(|name| folder.join(name).with_added_extension("json"));
        places.find(|place| !place.exists() || earlier(place, record).is_some())
    }

    /// Removes samples that were drawn for it.
    pub fn remove(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::Run(_, _, stash) => stash.take().map_or(Ok(()), Stash::remove),
            Kind::Pictures(..) => Ok(()),
        }
    }
}

/// Keys that differ between two measurements of the same thing.
const FREE: [&str; 3] = ["code_revision", "device", "command_line"];

/// The record in a file, if it is of the same settings as `record`, which has no metrics yet.
pub fn earlier(place: &Path, record: &Value) -> Option<Value> {
    let there: Value = serde_json::from_str(&std::fs::read_to_string(place).ok()?).ok()?;
    let settings = record.as_object()?.iter().filter(|(key, _)| !FREE.contains(&key.as_str()));
    settings.clone().all(|(key, value)| there.get(key) == Some(value)).then_some(there)
}

/// Options of samples say nothing of pictures.
fn refuse_of_runs(args: &EvalFid, source: &str) -> Result<()> {
    let guide = &args.guide;
    let given = [
        ("--sampler", args.sampler.is_some()),
        ("--steps", args.steps.is_some()),
        ("--weights", args.weights.is_some()),
        ("--set", !args.sets.is_empty()),
        ("--class", guide.class.is_some()),
        ("--guidance", guide.guidance.is_some()),
        ("--clip", guide.clip),
        ("--threshold", guide.threshold.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => {
            let text = format!("{option} is of the samples of a run, and {source} is none");
            Err(Failure::Usage(text).into())
        }
        None => Ok(()),
    }
}

/// The options that stand for settings of the section `sampler`.
fn configure(args: &EvalFid, source: &mut Source) {
    if let Some(name) = &args.sampler {
        source.put("sampler", "name", name.clone());
    }
    if let Some(steps) = args.steps {
        source.put("sampler", "steps", steps as i64);
    }
}

/// Draws samples, and tells what they cost.
fn draw(run: &Run, n: usize, args: &EvalFid, output: Output) -> Result<(Stash, Value)> {
    let wanted: Vec<u32> = (0..n as u32).collect();
    let Guided { field, labels } = guide::field(run, &args.guide, &wanted)?;
    let field = guide::clipped(run, &args.guide, field)?;
    guide::check_learned(run, &args.guide, false)?;
    let recipe = Recipe::new(run.sde.as_ref(), &run.preset.sampler, None);
    let calibration = calibration::of_run(run, &recipe, output)?;
    let recipe = Recipe { calibration: calibration.as_ref(), ..recipe };
    let towards = json!({ "guidance": guide::record(&args.guide, labels.as_deref()) });
    let sampler = &run.preset.sampler;
    let out = run.path.join("samples").join(format!("fid-{}-{}", sampler.name, sampler.steps));
    let work = Work {
        run,
        recipe: &recipe,
        field: field.as_ref(),
        wanted: &wanted,
        seed: args.seed,
        batch: args.batch,
        towards: &towards,
    };
    let stash = work.draw(&out, output)?;
    let drawn = Drawn { x: stash.block(0..0)?, nfe: stash.nfe().to_vec() };
    let mut record =
        json!({ "sampler": sampler, "times": recipe.grid()?.times(), "nfe": drawn.nfe_record() });
    merge(&mut record, towards);
    Ok((stash, record))
}
