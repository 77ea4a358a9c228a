//! What is told of a run as it stands: the numbers at the top, samples, all numbers, configuration, provenance, records.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::html::{escape, folded, note, picture, table, texts};
use crate::figures::{number, with_error};
use crate::records::{Metric, Records, metrics};

/// Pictures on a page, and the largest of them.
const PICTURES: usize = 8;
const LARGEST: u64 = 6 << 20;

/// Numbers that stand at the top if they were measured: the key, and what it is called.
const FIRST: [(&str, &str); 10] = [
    ("bits_per_dim", "bits/dim"),
    ("bound_bits_per_dim", "bits/dim, bound"),
    ("nats", "nats"),
    ("fid", "FID"),
    ("fid_infinity", "FID∞"),
    ("kid", "KID"),
    ("held_out_loss", "held-out loss"),
    ("loss", "training loss"),
    ("sliced_w2_squared", "sliced W₂²"),
    ("paths.straightness", "straightness"),
];

/// The numbers at the top.
pub fn tiles(run: &Records) -> String {
    let mut tiles: Vec<(String, String, String)> = Vec::new();
    let of = |key: &str| run.all.values().find_map(|record| record.get(key));
    for (key, name) in [("step", "updates"), ("parameters", "parameters")] {
        let value = run.all.get("train").and_then(|record| record.get(key)).or_else(|| of(key));
        tiles.extend(value.and_then(Value::as_u64).map(|v| (name.into(), grouped(v), String::new())));
    }
    for (key, name) in FIRST {
        for (record, value) in &run.all {
            let found = metrics(value, false).into_iter().find(|metric| metric.name == key);
            // Where there are bits/dim, nats say the same.
            if key == "nats" && value.get("bits_per_dim").is_some() {
                continue;
            }
            tiles.extend(
                found.map(|m| (format!("{name}, {record}"), with_error(m.value, m.standard_error), said(&m))),
            );
        }
    }
    let tile = |(name, value, beside): &(String, String, String)| {
        let beside =
            if beside.is_empty() { String::new() } else { format!("<small>{}</small>", escape(beside)) };
        format!("<div><dt>{}</dt><dd>{}{beside}</dd></div>\n", escape(name), escape(value))
    };
    if tiles.is_empty() {
        String::new()
    } else {
        format!("<dl class=\"tiles\">\n{}</dl>", tiles.iter().map(tile).collect::<String>())
    }
}

fn said(metric: &Metric) -> String {
    metric.n.map_or(String::new(), |n| format!("n = {}", grouped(n)))
}

/// Thousands apart by a thin space.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(c);
    }
    text
}

/// A PNG file as a figure; one that is too large for a page is only named.
pub fn figure_of(path: &Path, title: &str, words: &str) -> Result<String> {
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if size > LARGEST {
        return Ok(note(&format!("{title}: {size} bytes, too large for this page")));
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(picture(&bytes, title, words))
}

/// The sheets: of `sample` and the demo, then of training, the latest first.
pub fn samples(run: &Records) -> Result<String> {
    let (mut drawn, mut sheets) = (Vec::new(), Vec::new());
    for path in entries(&run.path.join("samples"))? {
        match path.is_dir() {
            true => drawn.extend(entries(&path)?.into_iter().filter(|file| is_png(file))),
            false if is_png(&path) => sheets.push(path),
            false => {}
        }
    }
    drawn.extend([run.path.join("samples.png")].into_iter().filter(|path| path.is_file()));
    sheets.reverse();
    let total = drawn.len() + sheets.len();
    let mut figures = String::new();
    for path in drawn.iter().chain(&sheets).take(PICTURES) {
        let name = path.strip_prefix(&run.path).unwrap_or(path).display().to_string();
        figures.push_str(&figure_of(path, &name, &caption(path))?);
    }
    if figures.is_empty() {
        return Ok(figures);
    }
    let more = match total.saturating_sub(PICTURES) {
        0 => String::new(),
        more => note(&format!("{more} more in the run's directory")),
    };
    Ok(format!("<div class=\"pictures\">\n{figures}</div>\n{more}"))
}

/// What the record beside a sheet says of it.
fn caption(path: &Path) -> String {
    let text = path.parent().and_then(|folder| std::fs::read_to_string(folder.join("record.json")).ok());
    let record: Option<Value> = text.and_then(|text| serde_json::from_str(&text).ok());
    let Some(record) = record else { return String::new() };
    let of = |key: &str| record.get(key).filter(|value| !value.is_null());
    let sampler = record.pointer("/sampler/name").and_then(Value::as_str).map(str::to_owned);
    let calls = of("nfe").and_then(|nfe| nfe.as_f64().or_else(|| nfe.get("mean")?.as_f64()));
    let step = of("step").and_then(Value::as_u64);
    let parts = [
        sampler,
        calls.map(|calls| format!("{} network calls", number(calls))),
        of("n").and_then(Value::as_u64).map(|n| format!("{n} samples")),
        step.map(|step| format!("weights of update {step}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn is_png(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"))
}

/// What is in a directory, sorted by name; nothing if it is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let read = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = read
        .map(|entry| Ok(entry.with_context(|| format!("cannot read {}", folder.display()))?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Every measured number of every record.
pub fn numbers(run: &Records) -> String {
    let mut rows = Vec::new();
    for (record, value) in &run.all {
        for metric in metrics(value, false) {
            let n = metric.n.map_or("–".into(), grouped);
            let error = metric.standard_error.map_or("–".into(), number);
            rows.push(vec![format!("{record} {}", metric.name), number(metric.value), error, n]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    table(&["number", "value", "standard error", "n"], &rows)
}

/// The configuration, section by section.
pub fn configuration(run: &Records) -> String {
    let mut html = String::new();
    let (tables, plain): (Vec<_>, Vec<_>) = run.config.iter().partition(|(_, value)| value.is_table());
    let mut leaves = Vec::new();
    plain.iter().for_each(|(key, value)| flatten(key, value, &mut leaves));
    html.push_str(&texts(&leaves));
    html.push_str("<div class=\"columns\">\n");
    for (section, value) in tables {
        let mut leaves = Vec::new();
        flatten("", value, &mut leaves);
        html.push_str(&format!("<div><h3>{}</h3>\n{}</div>\n", escape(section), texts(&leaves)));
    }
    html + "</div>\n"
}

fn flatten(path: &str, value: &toml::Value, leaves: &mut Vec<Vec<String>>) {
    match value.as_table() {
        Some(table) => {
            for (key, value) in table {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&below, value, leaves);
            }
        }
        None => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            leaves.push(vec![path.to_owned(), text]);
        }
    }
}

/// Where the run and each of its records come from.
pub fn provenance(run: &Records) -> Result<String> {
    let file = run.path.join("provenance.json");
    let mut html = String::new();
    if file.is_file() {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        // What a run was made with is text whatever it holds.
        if let Ok(Value::Object(map)) = serde_json::from_str(&text) {
            let rows: Vec<_> = map.iter().map(|(key, value)| vec![key.clone(), plain(value)]).collect();
            html.push_str(&texts(&rows));
        } else {
            html.push_str(&folded("provenance.json", &text));
        }
    }
    let keys = ["command", "step", "weights", "seed", "device", "code_revision", "weights_sha256"];
    let rows: Vec<Vec<String>> = run
        .all
        .iter()
        .map(|(name, record)| {
            let cells = keys.iter().map(|key| record.get(key).map_or("–".into(), plain));
            std::iter::once(name.clone()).chain(cells).collect()
        })
        .collect();
    if !rows.is_empty() {
        let head = ["record", "command", "step", "weights", "seed", "device", "code", "weights’ SHA-256"];
        html.push_str(&table(&head, &rows));
    }
    Ok(html)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Every record as it stands.
pub fn records(run: &Records) -> String {
    let text = |record: &Value| serde_json::to_string_pretty(record).unwrap_or_default();
    run.all.iter().map(|(name, record)| folded(&format!("{name}.json"), &text(record))).collect()
}
