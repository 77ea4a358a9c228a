//! `presets` and `show`.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::Show;
use crate::config::{Source, names};
use crate::figures::grouped;
use crate::method::{self, Facts};
use crate::output::Output;

/// Lists the presets with what they are.
pub fn list(output: Output) -> Result<()> {
    let mut table = String::new();
    let mut records = Vec::new();
    for name in names() {
        let preset = method::of(&Source::find(name)?)?;
        table += &format!("{name:24} {}\n", preset.about());
        records.push(json!({ "name": name, "about": preset.about() }));
    }
    output.result(table.trim_end(), &Value::Array(records))
}

/// Prints a preset as TOML.
pub fn show(args: &Show, output: Output) -> Result<()> {
    let mut source = Source::find(&args.preset)?;
    args.sets.iter().try_for_each(|set| source.set(set))?;
    let preset = method::of(&source)?;
    preset.check()?;
    let Facts { parameters, line, record: facts } = preset.facts(output)?;
    let mut record = preset.to_value()?;
    record["parameters"] = json!(parameters);
    for (key, fact) in facts {
        record[key] = fact;
    }
    let text = preset.to_toml()?;
    output.result(format!("{text}\n# {} trainable parameters {line}", grouped(parameters)), &record)
}
