//! The records of a run, read back: what was measured, with what error, and under which settings.
//!
//! A measured number is an object with `value` and `standard_error`, or a number with its error beside it (`nats` and `nats_stderr`,
//! the main one and `stderr`), or one of a few that have no error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::exit::Failure;
use crate::run;

/// Numbers that are measured without an error bar.
const BARE: [&str; 11] = [
    "loss",
    "held_out_loss",
    "parameters",
    "images_per_second",
    "density_mass",
    "fid",
    "kid",
    "fid_infinity",
    "inception_score",
    "bits_per_dim",
    "nats",
];

/// Keys that say how something was measured; numbers from different ones cannot be compared.
const SETTINGS: [&str; 20] = [
    "command",
    "split",
    "n",
    "dim",
    "divergence",
    "prior",
    "t_start",
    "t_stop",
    "directions",
    "bound",
    "variance",
    "velocities",
    "velocity_average",
    "integrator",
    "dequantise_samples",
    "space",
    "reference",
    "squares",
    "fid_infinity_reference",
    "prdc_neighbours",
];

/// A run's directory with everything that is told in it.
pub struct Records {
    /// The directory.
    pub path: PathBuf,
    /// Its configuration.
    pub config: toml::Table,
    /// Its records, by the name of their file without `.json`.
    pub all: BTreeMap<String, Value>,
}

/// A measured number.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its place in the record, parts joined by dots.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its standard error, if it is known.
    pub standard_error: Option<f64>,
    /// The number of independent samples behind it, if it is told.
    pub n: Option<u64>,
    /// The degrees of freedom of its standard error, if they are few.
    pub degrees_of_freedom: Option<f64>,
}

impl Records {
    /// Reads the records of a run; none is no error.
    pub fn read(name: Option<&Path>) -> Result<Self> {
        let path = run::locate(name)?;
        let file = path.join("config.toml");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let config = text.parse::<toml::Table>().map_err(|error| bad(&file, error.message()))?;
        let folder = path.join("records");
        let mut all = BTreeMap::new();
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            other => Some(other.with_context(|| format!("cannot read {}", folder.display()))?),
        };
        for entry in entries.into_iter().flatten() {
            let file = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
            let Some(stem) = file.file_stem().and_then(|stem| stem.to_str()) else { continue };
            // The note of a file under way is no record.
            if file.extension().is_none_or(|e| e != "json") || stem.ends_with(".partial") || !file.is_file() {
                continue;
            }
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let value: Value = serde_json::from_str(&text).map_err(|error| bad(&file, &error.to_string()))?;
            if !value.is_object() {
                return Err(bad(&file, "expected an object"));
            }
            all.insert(stem.to_owned(), value);
        }
        Ok(Self { path, config, all })
    }

    /// A string of the configuration, such as `data.name`.
    pub fn configured(&self, section: &str, key: &str) -> Option<&str> {
        self.config.get(section)?.get(key)?.as_str()
    }

    /// The preset's name.
    pub fn preset(&self) -> &str {
        self.config.get("name").and_then(toml::Value::as_str).unwrap_or("?")
    }
}

fn bad(file: &Path, what: &str) -> anyhow::Error {
    let what = what.lines().next().unwrap_or_default();
    Failure::Data(format!("{}: {what}", file.display())).into()
}

/// The measured numbers of a record; those of lists, one for each time, only with `lists`.
pub fn metrics(record: &Value, lists: bool) -> Vec<Metric> {
    let mut found = Vec::new();
    walk(record, "", lists, &mut found);
    found
}

fn walk(value: &Value, path: &str, lists: bool, found: &mut Vec<Metric>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) if map.contains_key("value") && map.contains_key("standard_error") => {
            let n = map.get("n").and_then(Value::as_u64);
            let standard_error = map["standard_error"].as_f64();
            found.extend(map["value"].as_f64().map(|value| Metric {
                name: path.to_owned(),
                value,
                standard_error,
                n,
                degrees_of_freedom: map.get("degrees_of_freedom").and_then(Value::as_f64),
            }));
        }
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_f64() {
                    Some(_) if key.ends_with("degrees_of_freedom") => {}
                    Some(value) => found.extend(beside(map, key, value, below(key))),
                    None => walk(value, &below(key), lists, found),
                }
            }
        }
        Value::Array(items) if lists => {
            for (i, item) in items.iter().enumerate() {
                let place =
                    item.get("t").and_then(Value::as_f64).map_or(i.to_string(), |t| format!("t={t:.4}"));
                walk(item, &below(&place), lists, found);
            }
        }
        _ => {}
    }
}

/// A number that is measured, with the error that stands beside it.
fn beside(map: &Map<String, Value>, key: &str, value: f64, name: String) -> Option<Metric> {
    // The error of the main number, which is bits/dim where there are any.
    let main = match key {
        "bits_per_dim" | "bound_bits_per_dim" => map.get("stderr"),
        "gaussian_bits_per_dim" => map.get("gaussian_stderr"),
        _ => None,
    };
    let own = ["stderr", "standard_error"].iter().find_map(|end| map.get(&format!("{key}_{end}")));
    let error = main.or(own);
    (error.is_some() || BARE.contains(&key)).then(|| Metric {
        name,
        value,
        standard_error: error.and_then(Value::as_f64),
        n: map.get("n").and_then(Value::as_u64),
        degrees_of_freedom: map.get(&format!("{key}_degrees_of_freedom")).and_then(Value::as_f64),
    })
}

/// The negative log density of each example, averaged over its repeats, from a csv with the columns `index` and `log_density`.
pub fn per_example(text: &str) -> BTreeMap<u64, f64> {
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name: &str| head.iter().position(|cell| *cell == name);
    let (Some(index), Some(density)) = (column("index"), column("log_density")) else {
        return BTreeMap::new();
    };
    let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let example = cells.get(index).and_then(|cell| cell.parse().ok());
        let value = cells.get(density).and_then(|cell| cell.parse::<f64>().ok()).filter(|v| v.is_finite());
        if let Some((example, value)) = example.zip(value) {
            let sum = sums.entry(example).or_insert((0.0, 0.0));
            *sum = (sum.0 - value, sum.1 + 1.0);
        }
    }
    sums.into_iter().map(|(example, (sum, n))| (example, sum / n)).collect()
}

/// The settings a record was measured under.
pub fn settings(record: &Value) -> BTreeMap<&str, &Value> {
    let known = SETTINGS.iter().filter_map(|key| Some((*key, record.get(key)?)));
    known.filter(|(_, value)| !value.is_null()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn repeats_of_an_example_are_averaged() {
        let text = "index,repeat,log_density,nfe\n4,0,1.0,9\n4,1,2.0,9\n7,0,,9\n8,0,-3,9\n";
        assert_eq!(per_example(text), BTreeMap::from([(4, -1.5), (8, 3.0)]));
        assert!(per_example("a,b\n1,2\n").is_empty());
    }

    #[test]
    fn numbers_are_found_with_their_errors() {
        let record = json!({
            "bits_per_dim": 2.5, "stderr": 0.1, "nats": 100.0, "nats_stderr": 3.0, "rtol": 1e-5, "n": 7,
            "paths": { "energy": { "value": 1.0, "standard_error": null, "n": 9 } },
            "times": [{ "t": 0.5, "loss": { "value": 0.2, "standard_error": 0.01, "n": 4 } }],
        });
        let found = metrics(&record, false);
        let of = |name: &str| found.iter().find(|m| m.name == name).map(|m| (m.value, m.standard_error, m.n));
        assert_eq!(of("bits_per_dim"), Some((2.5, Some(0.1), Some(7))));
        assert_eq!(of("nats"), Some((100.0, Some(3.0), Some(7))));
        assert_eq!(of("paths.energy"), Some((1.0, None, Some(9))));
        assert_eq!(found.len(), 3, "{found:?}");
        let all = metrics(&record, true);
        assert!(
            all.iter().any(|m| m.name == "times.t=0.5000.loss" && m.standard_error == Some(0.01)),
            "{all:?}"
        );
        assert_eq!(settings(&record), BTreeMap::from([("n", &json!(7))]));
    }
}
