//! Going on with a run: which one is meant, and whether what is asked for is still that run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cli::Train;
use crate::config::{Preset, Source, names};
use crate::exit::Failure;
use crate::run::{ROOT, locate};

/// The run that `--resume` means.
pub fn find(args: &Train) -> Result<PathBuf> {
    let named = Path::new(&args.preset);
    if args.out.is_none()
        && !names().any(|name| name == args.preset)
        && named.extension().is_none_or(|e| e != "toml")
    {
        return locate(Some(named));
    }
    let Preset { name, .. } = Source::find(&args.preset)?.parse()?;
    if let Some(path) = &args.out {
        let path = locate(Some(path))?;
        let Preset { name: found, .. } = Source::read(&path.join("config.toml"))?.parse()?;
        if found != name {
            let text = format!("{}: this is a run of {found}, not of {name}", path.display());
            return Err(Failure::Config(text).into());
        }
        return Ok(path);
    }
    let suffix = format!("-{name}");
    let none = || Failure::Usage(format!("there is no run of {name} under {ROOT}/; name one with --out"));
    if !Path::new(ROOT).is_dir() {
        return Err(none().into());
    }
    let entries = std::fs::read_dir(ROOT).with_context(|| format!("cannot read {ROOT}"))?;
    let named = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let numbered = name.strip_suffix(&suffix).is_some_and(|number| number.parse::<u32>().is_ok());
        numbered && path.join("config.toml").is_file()
    });
    named.max().ok_or_else(|| none().into())
}

/// The seed that a run was started with.
pub fn seed_of(run: &Path) -> Result<u64> {
    let file = run.join("provenance.json");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let seed = serde_json::from_str::<BTreeMap<String, String>>(&text)
        .ok()
        .and_then(|map| map.get("seed")?.parse().ok());
    seed.ok_or_else(|| {
        let text = format!("{}: expected the seed of the run; name it with --seed", file.display());
        Failure::Data(text).into()
    })
}

/// Refuses to go on with other settings than a run was started with, where they bear on the weights.
pub fn require_same(run: &Path, preset: &Preset) -> Result<()> {
    let file = run.join("config.toml");
    let started: Preset = Source::read(&file)?.parse()?;
    match difference("", &bearing(&started)?, &bearing(preset)?) {
        None => Ok(()),
        Some(what) => {
            let text = format!(
                "{}: {what}; a run keeps what its weights depend on: start a new one",
                file.display()
            );
            Err(Failure::Config(text).into())
        }
    }
}

/// The first key at which two configurations differ, with both values.
fn difference(at: &str, started: &Value, asked: &Value) -> Option<String> {
    match (started, asked) {
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            difference(&at, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
        }),
        _ if started == asked => None,
        _ => Some(format!("{at} is {started}, asked for is {asked}")),
    }
}

/// All of a configuration that bears on the weights: not how often something is logged, saved, drawn or measured.
pub fn bearing(preset: &Preset) -> Result<Value> {
    let mut neutral = preset.clone();
    neutral.about.clear();
    // The frozen weights bear on the result, not where they came from.
    if let Some(variance) = &mut neutral.variance {
        variance.base = None;
    }
    let train = &mut neutral.train;
    (train.log_every, train.checkpoint_every, train.sample_every, train.held_out) = (1, 1, None, None);
    train.tensorboard = None;
    train.keep = sde_train::checkpoint::Keep { last: 2, every: None };
    let mut value = serde_json::to_value(&neutral)?;
    for section in ["sampler", "likelihood"] {
        value[section] = Value::Null;
    }
    for key in ["path", "test_path"] {
        value["data"][key] = Value::Null;
    }
    Ok(without_what_is_off(value))
}

/// Without the keys that are null or false, so that an option that is added later and not taken changes nothing.
fn without_what_is_off(value: Value) -> Value {
    let off = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
    match value {
        Value::Object(keys) => {
            let on = keys.into_iter().map(|(key, value)| (key, without_what_is_off(value)));
            Value::Object(on.filter(|(_, value)| !off(value)).collect())
        }
        other => other,
    }
}
