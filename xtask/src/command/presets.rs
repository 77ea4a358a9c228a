//! `presets` and `show`.

use anyhow::Result;
use sde_data::Split;
use sde_nets::count_parameters;
use serde_json::{Value, json};

use crate::build::{DataConfig, Use};
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
    let shape = sample_shape(&preset.data, output)?;
    let parameters = count_parameters(|b| preset.net.build(b, &shape))?;
    let mut record = serde_json::to_value(&preset)?;
    record["parameters"] = json!(parameters);
    record["sample_shape"] = json!(shape);
    let text = toml::to_string(&preset)?;
    output.result(
        format!("{text}\n# {} trainable parameters on samples of shape {shape:?}", grouped(parameters)),
        &record,
    )
}

/// The shape of one sample, without the data where its name says it.
pub fn sample_shape(data: &DataConfig, output: Output) -> Result<Vec<usize>> {
    Ok(match data.name.as_str() {
        "cifar10" => vec![3, 32, 32],
        "mnist" | "fashion-mnist" => vec![1, 28, 28],
        _ => data.load(Split::Train, Use::Training, 0, output)?.set.shape().to_vec(),
    })
}

/// 35218947 as 35,218,947.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}
