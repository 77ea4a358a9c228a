//! `report`: a run as one page of HTML that opens anywhere, without a network.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cli::Report;
use crate::exit::Failure;
use crate::output::{Output, write};
use crate::provenance::revision;
use crate::records::Records;
use crate::report::Page;

/// Runs the command.
pub fn run(args: &Report, output: Output) -> Result<()> {
    let run = Records::read(args.run.as_deref())?;
    let benches = args.bench.iter().map(|path| bench(path)).collect::<Result<Vec<_>>>()?;
    let page = Page::of(&run, &benches)?;
    let out = args.out.clone().unwrap_or_else(|| run.path.join("report.html"));
    write(&out, page.html.as_bytes())?;
    let record = json!({
        "command": "report",
        "run": run.path.display().to_string(),
        "preset": run.preset(),
        "code_revision": revision(),
        "files": [out.display().to_string()],
        "bytes": page.html.len(),
        "sections": page.shown,
        "missing": page.missing.iter().map(|(id, command)| json!({ "section": id, "command": command })).collect::<Vec<_>>(),
    });
    let missing = page.missing.iter().map(|(id, command)| format!("{id} ({command})")).collect::<Vec<_>>();
    let missing = if missing.is_empty() {
        String::new()
    } else {
        format!("; nothing there yet for: {}", missing.join(", "))
    };
    output.result(format!("{} ({} kB){missing}", out.display(), page.html.len().div_ceil(1000)), &record)
}

/// A record of `bench sampler`.
fn bench(path: &Path) -> Result<(String, Value)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bad = |what: String| Failure::Data(format!("{}: {what}", path.display()));
    let value: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if value.get("command").and_then(Value::as_str) != Some("bench sampler") {
        return Err(bad("expected a record of `bench sampler`".into()).into());
    }
    let name = path.file_stem().map_or("bench".into(), |stem| stem.to_string_lossy().into_owned());
    Ok((name, value))
}
