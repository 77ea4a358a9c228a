//! `compare --seeds`: runs that differ in their seed alone are samples of one training; means over them, with what the seed does to each number.
//!
//! Runs of one configuration, so far as it bears on the weights, are one group, named by its preset, or where a preset was changed by its first run. The error of a mean is `s/√n` over its runs, and so holds what seeds,
//! held-out examples and estimators do together. A group is compared with the first over the seeds that both have, run by run, by Student's t.

use std::collections::BTreeMap;

use anyhow::Result;
use sde_eval::{ErrorBar, Estimate, two_sided};
use serde_json::{Value, json};

use super::{probability, signed};
use crate::command::train::{bearing, seed_of};
use crate::config::Source;
use crate::exit::Failure;
use crate::figures::with_error;
use crate::method;
use crate::output::Output;
use crate::provenance::revision;
use crate::records::{Records, metrics};
use crate::table::Table;

/// The runs of one configuration.
struct Group<'a> {
    name: String,
    /// What bears on the weights.
    bearing: Value,
    /// By seed.
    runs: BTreeMap<u64, &'a Records>,
}

/// Runs the command.
pub fn run(runs: &[Records], markdown: bool, output: Output) -> Result<()> {
    let groups = grouped(runs)?;
    let mut head = vec!["metric".to_owned()];
    head.extend(groups.iter().map(|group| group.name.clone()));
    head.extend(
        groups.iter().skip(1).flat_map(|group| [format!("{} − {}", group.name, groups[0].name), "p".into()]),
    );
    let mut table = Table::new(&head);
    let mut found = Vec::new();
    for (record, metric) in names(runs) {
        let values: Vec<BTreeMap<u64, f64>> =
            groups.iter().map(|group| group.values(&record, &metric)).collect();
        let means: Vec<Option<Estimate>> =
            values.iter().map(|v| Estimate::mean(&v.values().copied().collect::<Vec<_>>()).ok()).collect();
        let differences: Vec<Option<Estimate>> =
            values.iter().skip(1).map(|v| paired(&values[0], v)).collect();
        let mut cells = vec![format!("{record} {metric}")];
        cells.extend(means.iter().map(|m| m.map_or("–".into(), |m| with_error(m.value, m.standard_error))));
        for difference in &differences {
            let text = difference.map_or("–".into(), |d| signed(with_error(d.value, d.standard_error)));
            cells.extend([text, difference.and_then(chance).map_or_else(String::new, probability)]);
        }
        table.row(cells);
        found.push(json!({
            "record": record, "metric": metric, "means": means, "differences": differences,
            "p": differences.iter().map(|d| d.and_then(chance)).collect::<Vec<_>>(),
        }));
    }
    let record = json!({
        "command": "compare",
        "code_revision": revision(),
        "groups": groups.iter().map(Group::record).collect::<Vec<_>>(),
        "metrics": found,
        "tables": [table.record("means over seeds")],
    });
    let seeds = groups.iter().map(|group| {
        let seeds: Vec<String> = group.runs.keys().map(u64::to_string).collect();
        format!("{}  seeds {}", group.name, seeds.join(", "))
    });
    let body = if markdown { table.markdown() } else { table.text() };
    let foot = "mean ± standard error over runs; differences of runs of the same seed, p two-sided by Student's t; * below 0.05, ** 0.01, *** 0.001";
    let text: Vec<String> = seeds.chain([String::new(), body, String::new(), foot.to_owned()]).collect();
    output.result(text.join("\n"), &record)
}

/// The runs by configuration, in the order in which these come.
fn grouped(runs: &[Records]) -> Result<Vec<Group<'_>>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in runs {
        let seed = seed_of(&run.path)?;
        let bearing = bearing(method::of(&Source::read(&run.path.join("config.toml"))?)?.as_ref())?;
        let place = match groups.iter().position(|group| group.bearing == bearing) {
            Some(place) => place,
            None => {
                let taken = groups.iter().any(|group| group.name == run.preset());
                let name = if taken { run.path.display().to_string() } else { run.preset().to_owned() };
                groups.push(Group { name, bearing, runs: BTreeMap::new() });
                groups.len() - 1
            }
        };
        if let Some(other) = groups[place].runs.insert(seed, run) {
            let text = format!(
                "{} and {} are both of {}, seed {seed}: with --seeds every run of a configuration has a seed of its own",
                other.path.display(),
                run.path.display(),
                run.preset()
            );
            return Err(Failure::Usage(text).into());
        }
    }
    Ok(groups)
}

/// Every metric of any run.
fn names(runs: &[Records]) -> Vec<(String, String)> {
    let mut names = Vec::new();
    for run in runs {
        for (record, value) in &run.all {
            names.extend(metrics(value, false).into_iter().map(|metric| (record.clone(), metric.name)));
        }
    }
    names.sort();
    names.dedup();
    names
}

impl Group<'_> {
    /// A metric by seed.
    fn values(&self, record: &str, metric: &str) -> BTreeMap<u64, f64> {
        let of_run = |run: &Records| {
            let metrics = metrics(run.all.get(record)?, false);
            metrics.into_iter().find(|m| m.name == metric).map(|m| m.value)
        };
        self.runs.iter().filter_map(|(seed, run)| Some((*seed, of_run(run)?))).collect()
    }

    fn record(&self) -> Value {
        let run = |(seed, run): (&u64, &&Records)| {
            let hash = run.all.values().find_map(|record| record.get("weights_sha256")).cloned();
            json!({ "seed": seed, "run": run.path.display().to_string(), "weights_sha256": hash })
        };
        json!({ "preset": self.name, "runs": self.runs.iter().map(run).collect::<Vec<_>>() })
    }
}

/// The mean difference over the seeds of both.
fn paired(first: &BTreeMap<u64, f64>, other: &BTreeMap<u64, f64>) -> Option<Estimate> {
    let each: Vec<f64> = other.iter().filter_map(|(seed, value)| Some(value - first.get(seed)?)).collect();
    Estimate::mean(&each).ok()
}

/// The probability of a difference as large by chance.
fn chance(difference: Estimate) -> Option<f64> {
    let standard_error = difference.standard_error.filter(|error| *error > 0.0)?;
    let degrees_of_freedom = Some(difference.n as f64 - 1.0);
    let bars = [
        ErrorBar { standard_error, degrees_of_freedom },
        ErrorBar { standard_error: 0.0, degrees_of_freedom: None },
    ];
    Some(two_sided(difference.value, bars))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_of_the_same_seed() {
        let first = BTreeMap::from([(0, 1.0), (1, 5.0), (2, 3.0)]);
        let other = BTreeMap::from([(1, 5.5), (2, 4.5), (7, 100.0)]);
        let found = paired(&first, &other).expect("two seeds");
        // 0.5 and 1.5: mean 1, s = √½, s/√2 = ½; t = 2 with one degree of freedom has p = 1 − (2/π) atan 2.
        assert!(
            (found.value - 1.0).abs() < 1e-15 && (found.standard_error.unwrap_or(0.0) - 0.5).abs() < 1e-15
        );
        let exact = 1.0 - 2.0 / std::f64::consts::PI * 2f64.atan();
        assert!((chance(found).unwrap_or(0.0) - exact).abs() < 1e-9, "{:?} for {exact}", chance(found));
        assert!(paired(&first, &BTreeMap::from([(9, 1.0)])).is_none());
    }
}
