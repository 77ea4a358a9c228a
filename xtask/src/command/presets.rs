//! `presets` and `show`.

use anyhow::Result;
use sde_nets::count_parameters;
use serde_json::{Value, json};

use crate::build::learned;
use crate::cli::Show;
use crate::config::{Preset, Source, names};
use crate::output::Output;

/// Lists the presets with what they are.
pub fn list(output: Output) -> Result<()> {
    let mut table = String::new();
    let mut records = Vec::new();
    for name in names() {
        let preset: Preset = Source::find(name)?.parse()?;
        table += &format!("{name:18} {}\n", preset.about);
        records.push(json!({ "name": name, "about": preset.about }));
    }
    output.result(table.trim_end(), &Value::Array(records))
}

/// Prints a preset as TOML.
pub fn show(args: &Show, output: Output) -> Result<()> {
    let mut source = Source::find(&args.preset)?;
    args.sets.iter().try_for_each(|set| source.set(set))?;
    let preset: Preset = source.parse()?;
    preset.train.check()?;
    let (shape, _) = preset.data.facts(output)?;
    let state = preset.process.state_shape(&shape)?;
    let of_process = count_parameters(|b| learned::forward(&preset.process, b, &shape))?;
    let parameters = count_parameters(|b| preset.net.build(b, &state))? + of_process;
    let mut record = serde_json::to_value(&preset)?;
    record["parameters"] = json!(parameters);
    record["sample_shape"] = json!(shape);
    record["state_shape"] = json!(state);
    let text = toml::to_string(&preset)?;
    let learned = match of_process {
        0 => String::new(),
        n => format!(", {} of them of the process", grouped(n)),
    };
    output.result(
        format!(
            "{text}\n# {} trainable parameters on states of shape {state:?}{learned}",
            grouped(parameters)
        ),
        &record,
    )
}

/// 35218947 as 35,218,947.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}
