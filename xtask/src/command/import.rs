//! `import`: weights of another project, or of `export`, to a run.
//!
//! Everything is read, translated and compared with the network before there is a directory, and the directory appears
//! with all that is in it.

mod found;
mod preset;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use sde_nets::Params;
use sde_nets::pretrained::Moments;
use sde_train::checkpoint::Origin;
use sde_train::hash::{sha256, weights_hash};
use sde_train::{RunDir, State, Target};
use serde_json::json;

use self::found::Found;
use self::preset::Imported;
use super::train::{bearing, flat};
use crate::cli::Import;
use crate::config::{Preset, Source};
use crate::exit::Failure;
use crate::figures::grouped;
use crate::method;
use crate::output::Output;
use crate::provenance::{provenance, revision};
use crate::run::ROOT;

/// The seed of what training goes on with.
const SEED: u64 = 0;

/// Runs the command.
pub fn run(args: &Import, output: Output) -> Result<()> {
    let found = Found::locate(&args.source, &args.format, output)?;
    let imported = Imported::read(args, &found, output)?;
    let preset = settled(args, &found, &imported)?;
    let (data, _) = preset.data.facts(output)?;
    let shape = preset.process.state_shape(&data)?;
    if shape != imported.sample_shape {
        let text = format!(
            "{}: the network is for samples of shape {:?}, the data {} for {shape:?}; name others with --preset, or --set data.name=…",
            args.source, imported.sample_shape, preset.data.name
        );
        return Err(Failure::Config(text).into());
    }
    let (_, params) =
        Params::restore(&imported.weights, DType::F32, &Device::Cpu, |b| preset.net.build(b, &shape))
            .with_context(|| args.source.clone())?;
    let moments = imported.moments.as_ref().map(|Moments { first, second }| (first, second));
    let state = State::adopt(&preset.train, &params, imported.average.as_ref(), moments, imported.step)?;
    let origin = Origin {
        seed: SEED,
        config_sha256: sha256(bearing(&method::score(&preset))?.to_string().as_bytes()),
        code: revision(),
    };
    let history = history(args, &found, &imported);
    let path = write(args, &preset, &history, &state, &origin)?;

    let optimiser = match (moments, imported.step) {
        (Some(_), step) => format!("training goes on at update {}", grouped(step as usize)),
        (None, _) => "without an optimiser's state: training would start anew".into(),
    };
    let average = if imported.average.is_some() { "weights and their average" } else { "one set of weights" };
    let record = json!({
        "command": "import",
        "run": path,
        "preset": preset.name,
        "source": args.source,
        "format": found.format(),
        "source_sha256": found.sha256(),
        "source_step": imported.step,
        "step": state.step(),
        "parameters": params.count(),
        "average": imported.average.is_some(),
        "optimiser": moments.is_some(),
        "weights_sha256": weights_hash(&params.to_weights()?)?,
        "code_revision": revision(),
    });
    output.result(format!("{path}: {} parameters, {average}, {optimiser}", grouped(params.count())), &record)
}

/// The configuration of the run: what the file says, what the preset adds, and what the command line changes.
fn settled(args: &Import, found: &Found, imported: &Imported) -> Result<Preset> {
    let mut preset = imported.preset.clone();
    preset.name = args.name.clone().unwrap_or_else(|| name_of(&args.source));
    preset.about = format!("imported from {} ({})", args.source, found.format());
    let mut source = Source::of_preset(&args.source, &preset)?;
    // Of a checkpoint that does not tell its network they are in the preset already, and the process came after them.
    if !matches!(found, Found::ScoreSde(..)) {
        args.sets.iter().try_for_each(|set| source.set(set))?;
    }
    let preset = source.score()?;
    preset.train.check()?;
    Ok(preset)
}

/// A name for a run: that of the file or folder, in small letters, digits and `-`.
fn name_of(source: &str) -> String {
    let path = Path::new(source);
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let stem = stem.map_or_else(String::new, |stem| stem.to_string_lossy().to_lowercase());
    let plain = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let name: String =
        plain.collect::<String>().split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    if name.is_empty() { "imported".into() } else { name }
}

/// What the run's directory says of where it comes from.
fn history(args: &Import, found: &Found, imported: &Imported) -> BTreeMap<String, String> {
    let mut history = flat(&provenance(&Device::Cpu), SEED);
    history.extend(imported.provenance.clone());
    for (key, value) in [
        ("source", args.source.clone()),
        ("source_format", found.format().to_owned()),
        ("source_sha256", found.sha256().to_owned()),
        ("source_step", imported.step.to_string()),
    ] {
        history.insert(key.into(), value);
    }
    history
}

fn write(
    args: &Import,
    preset: &Preset,
    history: &BTreeMap<String, String>,
    state: &State,
    origin: &Origin,
) -> Result<String> {
    let target = match &args.out {
        Some(path) if path.exists() => {
            let text = format!("{}: it exists; name another directory", path.display());
            return Err(Failure::Usage(text).into());
        }
        Some(path) => Target::At(path),
        None => Target::Below(Path::new(ROOT), &preset.name),
    };
    let text = toml::to_string(preset)?;
    let path =
        RunDir::create_whole(target, &text, history, |run| state.save(&run.checkpoints(), origin).map(drop))?;
    Ok(path.display().to_string())
}
