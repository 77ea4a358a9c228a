//! `compare`: what was measured of several runs, side by side, with the differences from the first and whether they are more than chance.
//!
//! `z = Δ / e`, p two-sided: normal, or Student's where an error has few degrees of freedom (`sde_eval::two_sided`). Likelihoods of the same examples are compared example by example, and e is the standard error of
//! the mean difference; of everything else `e = √(e₁² + e₂²)`, as if the errors were independent. Where they are not, p is rather too large.

mod seeds;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use sde_eval::{ErrorBar, Estimate, two_sided};
use serde_json::{Value, json};

use crate::cli::Compare;
use crate::exit::Failure;
use crate::figures::{number, with_error};
use crate::output::Output;
use crate::provenance::revision;
use crate::records::{Metric, Records, metrics, per_example, settings};
use crate::table::Table;

/// A measured number of every run that has it.
struct Row {
    record: String,
    name: String,
    /// One a run.
    values: Vec<Option<Metric>>,
    /// One for each run but the first.
    differences: Vec<Difference>,
}

/// How a run differs from the first.
enum Difference {
    /// One of them has no such number.
    Missing,
    /// They were measured in different ways, which are told.
    NotComparable(String),
    /// The difference.
    Found {
        value: f64,
        /// Unknown unless both errors are.
        standard_error: Option<f64>,
        /// Whether it is that of differences of the same examples.
        paired: bool,
        /// The probability of one as large by chance.
        p: Option<f64>,
    },
}

/// Runs the command.
pub fn run(args: &Compare, output: Output) -> Result<()> {
    let runs = args.runs.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    if args.seeds {
        return seeds::run(&runs, args.markdown, output);
    }
    let rows = rows(&runs, args.all);
    let record = json!({
        "command": "compare",
        "code_revision": revision(),
        "runs": runs.iter().map(identity).collect::<Vec<_>>(),
        "metrics": rows.iter().map(Row::record).collect::<Vec<_>>(),
    });
    let text = if args.markdown { markdown(&runs, &rows) } else { text(&runs, &rows) };
    output.result(text, &record)
}

fn read(path: &Path) -> Result<Records> {
    let records = Records::read(Some(path))?;
    if records.all.is_empty() {
        let text =
            format!("{}: nothing was measured of this run yet; eval-nll or eval-score does", path.display());
        return Err(Failure::Usage(text).into());
    }
    Ok(records)
}

/// What a run is.
fn identity(run: &Records) -> Value {
    let of = |key: &str| run.all.values().find_map(|record| record.get(key)).cloned();
    json!({
        "run": run.path.display().to_string(),
        "preset": run.preset(),
        "data": run.configured("data", "name"),
        "parameters": of("parameters"),
        "records": run.all.iter().map(|(name, record)| {
            (name.clone(), json!({
                "step": record.get("step"), "weights": record.get("weights"), "seed": record.get("seed"),
                "weights_sha256": record.get("weights_sha256"), "code_revision": record.get("code_revision"),
            }))
        }).collect::<BTreeMap<_, _>>(),
    })
}

fn rows(runs: &[Records], lists: bool) -> Vec<Row> {
    let mut order: Vec<(String, String)> = Vec::new();
    let mut found: Vec<BTreeMap<(String, String), Metric>> = Vec::new();
    for run in runs {
        let mut of_run = BTreeMap::new();
        for (record, value) in &run.all {
            for metric in metrics(value, lists) {
                let key = (record.clone(), metric.name.clone());
                if !order.contains(&key) {
                    order.push(key.clone());
                }
                of_run.insert(key, metric);
            }
        }
        found.push(of_run);
    }
    let row = |(record, name): (String, String)| {
        let key = (record.clone(), name.clone());
        let values: Vec<Option<Metric>> = found.iter().map(|of_run| of_run.get(&key).cloned()).collect();
        let differences = (1..runs.len())
            .map(|i| difference(&runs[0], &runs[i], &record, &values[0], &values[i]))
            .collect();
        Row { record, name, values, differences }
    };
    order.sort();
    order.into_iter().map(row).collect()
}

fn difference(
    first: &Records,
    other: &Records,
    record: &str,
    a: &Option<Metric>,
    b: &Option<Metric>,
) -> Difference {
    let (Some(a), Some(b)) = (a, b) else { return Difference::Missing };
    let mut apart = Vec::new();
    let names = [first.configured("data", "name"), other.configured("data", "name")];
    if names[0] != names[1] {
        apart.push(format!("data {} and {}", names[0].unwrap_or("?"), names[1].unwrap_or("?")));
    }
    // What training cost is told of the run as it was; there is no protocol to agree on.
    if record != "train" {
        let (ours, theirs) = (settings(&first.all[record]), settings(&other.all[record]));
        let keys = ours.keys().chain(theirs.keys().filter(|key| !ours.contains_key(*key)));
        for key in keys.filter(|key| ours.get(*key) != theirs.get(*key)) {
            let say = |value: Option<&&Value>| match value {
                None => "none".to_owned(),
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
            };
            apart.push(format!("{key} {} and {}", say(ours.get(key)), say(theirs.get(key))));
        }
        if a.n != b.n && !apart.iter().any(|text| text.starts_with("n ")) {
            let say = |n: Option<u64>| n.map_or("none".to_owned(), |n| n.to_string());
            apart.push(format!("n {} and {}", say(a.n), say(b.n)));
        }
    }
    if !apart.is_empty() {
        return Difference::NotComparable(apart.join(", "));
    }
    let value = b.value - a.value;
    let paired = paired(first, other, record, &a.name, value);
    let bar = |m: &Metric| {
        Some(ErrorBar { standard_error: m.standard_error?, degrees_of_freedom: m.degrees_of_freedom })
    };
    let same =
        paired.map(|e| [e, 0.0].map(|standard_error| ErrorBar { standard_error, degrees_of_freedom: None }));
    let bars = same.or(bar(a).zip(bar(b)).map(|(a, b)| [a, b]));
    let standard_error =
        bars.map(|[a, b]| f64::hypot(a.standard_error, b.standard_error)).filter(|e| *e > 0.0);
    let p = standard_error.and(bars).map(|bars| two_sided(value, bars));
    Difference::Found { value, standard_error, paired: paired.is_some(), p }
}

/// The standard error of the difference of two likelihoods from those of each example, if they are there for the same examples and add up
/// to this difference.
fn paired(first: &Records, other: &Records, record: &str, metric: &str, difference: f64) -> Option<f64> {
    let dim = first.all[record].get("dim").and_then(Value::as_f64);
    let scale = match metric {
        "nats" => 1.0,
        "bits_per_dim" => 1.0 / (dim? * std::f64::consts::LN_2),
        _ => return None,
    };
    let read = |run: &Records| {
        let text = std::fs::read_to_string(run.path.join("records").join(format!("{record}.csv"))).ok()?;
        Some(per_example(&text))
    };
    let (ours, theirs) = (read(first)?, read(other)?);
    if ours.len() < 2 || !ours.keys().eq(theirs.keys()) {
        return None;
    }
    let each: Vec<f64> = ours.values().zip(theirs.values()).map(|(a, b)| scale * (b - a)).collect();
    let found = Estimate::mean(&each).ok()?;
    // Files of another measurement than the record's add up to something else.
    let same = (found.value - difference).abs() <= 1e-6 * difference.abs().max(scale);
    found.standard_error.filter(|_| same)
}

impl Row {
    fn record(&self) -> Value {
        let value = |metric: &Option<Metric>| {
            metric.as_ref().map(|m| json!({ "value": m.value, "standard_error": m.standard_error, "n": m.n }))
        };
        let difference = |difference: &Difference| match difference {
            Difference::Missing => Value::Null,
            Difference::NotComparable(why) => json!({ "comparable": false, "why": why }),
            Difference::Found { value, standard_error, paired, p } => json!({
                "comparable": true,
                "paired": paired,
                "difference": value,
                "standard_error": standard_error,
                "z": standard_error.map(|e| value / e),
                "p": p,
            }),
        };
        json!({
            "record": self.record,
            "metric": self.name,
            "values": self.values.iter().map(value).collect::<Vec<_>>(),
            "differences": self.differences.iter().map(difference).collect::<Vec<_>>(),
        })
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![format!("{} {}", self.record, self.name)];
        let value = |m: &Metric| with_error(m.value, m.standard_error);
        cells.extend(self.values.iter().map(|metric| metric.as_ref().map_or("–".into(), value)));
        for difference in &self.differences {
            let (found, p) = match difference {
                Difference::Missing => ("–".into(), String::new()),
                Difference::NotComparable(_) => ("not comparable".into(), String::new()),
                Difference::Found { value, standard_error: None, .. } => {
                    (signed(number(*value)), String::new())
                }
                Difference::Found { value, standard_error: Some(error), p, .. } => {
                    let p = p.map_or_else(String::new, probability);
                    (signed(with_error(*value, Some(*error))), p)
                }
            };
            cells.extend([found, p]);
        }
        cells
    }
}

fn signed(text: String) -> String {
    if text.starts_with('-') || text == "0" { text } else { format!("+{text}") }
}

/// A probability with a star for each of 5 %, 1 % and 0.1 % that it is below.
fn probability(p: f64) -> String {
    let stars = [0.05, 0.01, 0.001].iter().filter(|bound| p < **bound).count();
    let text = if p < 1e-3 { format!("{p:.0e}") } else { format!("{p:.3}") };
    if stars == 0 { text } else { format!("{text} {}", "*".repeat(stars)) }
}

/// A letter a run.
fn letter(i: usize) -> String {
    char::from_u32('A' as u32 + i as u32).filter(|_| i < 26).map_or_else(|| format!("R{i}"), String::from)
}

fn head(runs: &[Records]) -> Vec<String> {
    let mut head = vec!["metric".to_owned()];
    head.extend((0..runs.len()).map(letter));
    head.extend((1..runs.len()).flat_map(|i| [format!("{} − A", letter(i)), "p".into()]));
    head
}

/// Which run each letter stands for, and what is to be known beside the numbers.
fn legend(runs: &[Records], rows: &[Row]) -> (Vec<String>, Vec<String>) {
    let of = |(i, run): (usize, &Records)| {
        let text = |key: &str| {
            let mut all: Vec<String> =
                run.all.values().filter_map(|record| record.get(key)).map(plain).collect();
            all.sort();
            all.dedup();
            all.join(" and ")
        };
        let (step, weights) = (text("step"), text("weights"));
        let at = if step.is_empty() { String::new() } else { format!(", step {step}") };
        let of = if weights.is_empty() { String::new() } else { format!(", {weights} weights") };
        format!("{}  {} ({}{at}{of})", letter(i), run.path.display(), run.preset())
    };
    let mut notes: Vec<String> = Vec::new();
    for row in rows {
        for (i, difference) in row.differences.iter().enumerate() {
            if let Difference::NotComparable(why) = difference {
                let note = format!("{} of A and {} not comparable: {why}", row.record, letter(i + 1));
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
    }
    (runs.iter().enumerate().map(of).collect(), notes)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

const FOOT: &str = "p: two-sided, of the difference over its standard error, by example where both have the same, else of errors taken as independent; * below 0.05, ** 0.01, *** 0.001";

fn table(runs: &[Records], rows: &[Row]) -> Table {
    let mut table = Table::new(&head(runs));
    rows.iter().for_each(|row| table.row(row.cells()));
    table
}

fn text(runs: &[Records], rows: &[Row]) -> String {
    let (letters, notes) = legend(runs, rows);
    let parts = [letters.join("\n"), String::new(), table(runs, rows).text(), String::new()];
    parts.into_iter().chain(notes).chain([FOOT.to_owned()]).collect::<Vec<_>>().join("\n")
}

fn markdown(runs: &[Records], rows: &[Row]) -> String {
    let (letters, notes) = legend(runs, rows);
    let list = letters.iter().chain(&notes).map(|text| format!("- {text}"));
    let parts = [String::new(), table(runs, rows).markdown(), String::new(), FOOT.replace('*', "\\*")];
    list.chain(parts).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_have_stars() {
        assert_eq!([0.2, 0.04, 0.002, 0.0001].map(probability), ["0.200", "0.040 *", "0.002 **", "1e-4 ***"]);
        assert_eq!(signed("0.5".into()), "+0.5");
    }
}
