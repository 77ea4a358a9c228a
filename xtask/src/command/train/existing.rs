//! Going on with a run: which one is meant, and whether what is asked for is still that run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cli::Train;
use crate::config::{Source, names};
use crate::exit::Failure;
use crate::method::{self, Method};
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
    let preset = method::of(&Source::find(&args.preset)?)?;
    let name = preset.name();
    if let Some(path) = &args.out {
        let path = locate(Some(path))?;
        let found = method::of(&Source::read(&path.join("config.toml"))?)?;
        if found.name() != name {
            let text = format!("{}: this is a run of {}, not of {name}", path.display(), found.name());
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
pub fn require_same(run: &Path, asked: &dyn Method) -> Result<()> {
    let file = run.join("config.toml");
    let started = method::of(&Source::read(&file)?)?;
    match difference("", &bearing(started.as_ref())?, &bearing(asked)?) {
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
pub fn bearing(method: &dyn Method) -> Result<Value> {
    let mut value = method.to_value()?;
    let mut put = |path: &str, to: Value| {
        if let Some(place) = value.pointer_mut(path) {
            *place = to;
        }
    };
    put("/about", json!(""));
    for often in ["/train/log_every", "/train/checkpoint_every"] {
        put(often, json!(1));
    }
    put("/train/keep", json!({ "last": 2, "every": null }));
    // The frozen weights bear on the result, not where they came from.
    for aside in ["/start/run", "/start/weights"] {
        put(aside, Value::Null);
    }
    for aside in ["/variance/base", "/train/sample_every", "/train/held_out", "/train/tensorboard"] {
        put(aside, Value::Null);
    }
    for aside in ["/sampler", "/likelihood", "/data/path", "/data/test_path"] {
        put(aside, Value::Null);
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
