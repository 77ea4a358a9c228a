//! What `bench sampler` found: errors against network calls, as curves and as a table.

use anyhow::Result;
use serde_json::Value;

use super::html::{chart, note, table};
use crate::figures::{number, with_error};
use crate::plot::{Axis, Chart, Mark, Series};
use crate::records::Records;

/// Curves that can be told apart.
const DRAWN: usize = 8;

/// A sampler with its cells: calls, error and its standard error, distance and its standard error.
struct Sampler<'a> {
    name: &'a str,
    cells: Vec<Cell>,
}

struct Cell {
    nfe: f64,
    error: Option<(f64, Option<f64>)>,
    distance: Option<(f64, Option<f64>)>,
}

impl<'a> Sampler<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        let estimate = |cell: &Value, key: &str| {
            let of = |part: &str| cell.get(key)?.get(part)?.as_f64();
            Some((of("value")?, of("standard_error")))
        };
        let cell = |cell: &Value| {
            let nfe = cell.get("nfe")?.as_f64()?;
            Some(Cell { nfe, error: estimate(cell, "error"), distance: estimate(cell, "sliced_w2_squared") })
        };
        let cells = value.get("cells")?.as_array()?.iter().filter_map(cell).collect();
        Some(Self { name: value.get("sampler")?.as_str()?, cells })
    }

    /// The mean of the logarithms of its errors; none without any.
    fn rank(&self) -> Option<f64> {
        let logs: Vec<f64> =
            self.cells.iter().filter_map(|c| Some(c.error?.0.ln())).filter(|v| v.is_finite()).collect();
        (!logs.is_empty()).then(|| logs.iter().sum::<f64>() / logs.len() as f64)
    }
}

/// The section: of the run's own records and of those from elsewhere.
pub fn section(run: &Records, others: &[(String, Value)]) -> Result<String> {
    let own = run.all.iter().map(|(name, value)| (name.as_str(), value));
    let all = own.chain(others.iter().map(|(name, value)| (name.as_str(), value)));
    let mut html = String::new();
    for (name, record) in all {
        if record.get("command").and_then(Value::as_str) != Some("bench sampler") {
            continue;
        }
        let listed = record.get("samplers").and_then(Value::as_array).into_iter().flatten();
        let samplers: Vec<Sampler<'_>> = listed.filter_map(Sampler::of).collect();
        html.push_str(&curves(name, &samplers)?);
        html.push_str(&cells(&samplers));
        let of = |key: &str| record.get(key).and_then(Value::as_f64).map_or("–".into(), number);
        html.push_str(&note(&format!(
            "{name}: {} starts on a law of {} points; error: root mean square to the end of the flow, –: a stochastic sampler, whose distance to the data (sliced W₂²) is in brackets",
            of("starts"),
            of("points")
        )));
    }
    Ok(html)
}

fn curves(name: &str, samplers: &[Sampler<'_>]) -> Result<String> {
    let mut ranked: Vec<(f64, &Sampler<'_>)> = samplers.iter().filter_map(|s| Some((s.rank()?, s))).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total = ranked.len();
    let line = |sampler: &Sampler<'_>| {
        let points = sampler.cells.iter().filter_map(|cell| {
            let (value, error) = cell.error?;
            Some((cell.nfe, value, error.unwrap_or(0.0)))
        });
        Series { name: sampler.name.to_owned(), points: points.collect(), mark: Mark::Dots }
    };
    let drawn = Chart {
        title: format!("Error against network calls, {name}"),
        x: Axis::log("network calls"),
        y: Axis::log("root mean square error"),
        series: ranked.iter().take(DRAWN).map(|(_, sampler)| line(sampler)).collect(),
    };
    let figure =
        chart(&drawn, &if total > DRAWN { format!("the best {DRAWN} of {total}") } else { String::new() })?;
    Ok(if figure.is_empty() { figure } else { format!("<div class=\"charts\">{figure}</div>\n") })
}

fn cells(samplers: &[Sampler<'_>]) -> String {
    let mut calls: Vec<f64> = samplers.iter().flat_map(|s| s.cells.iter().map(|c| c.nfe)).collect();
    calls.sort_by(f64::total_cmp);
    calls.dedup();
    let head: Vec<String> =
        std::iter::once("sampler".to_owned()).chain(calls.iter().map(|n| format!("{n} calls"))).collect();
    let text = |cell: &Cell| match (cell.error, cell.distance) {
        (Some((value, error)), _) => with_error(value, error),
        (None, Some((value, error))) => format!("({})", with_error(value, error)),
        (None, None) => "–".into(),
    };
    let row = |sampler: &Sampler<'_>| {
        let at = |n: &f64| sampler.cells.iter().find(|c| c.nfe == *n).map_or("–".into(), text);
        std::iter::once(sampler.name.to_owned()).chain(calls.iter().map(at)).collect()
    };
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(&head, &samplers.iter().map(row).collect::<Vec<Vec<String>>>())
}
