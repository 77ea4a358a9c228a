//! `samplers`: the table of all samplers.

use anyhow::Result;
use sde_solvers::catalog::{self, Stochastic};
use serde_json::{Value, json};

use crate::cli::Samplers;
use crate::output::Output;

/// Prints the table: for reading, as Markdown, or as a record.
pub fn run(args: &Samplers, output: Output) -> Result<()> {
    let records: Vec<Value> = catalog::all()
        .map(|entry| {
            json!({
                "name": entry.name,
                "what": entry.what,
                "order": (entry.order > 0).then_some(entry.order),
                "nfe": entry.nfe,
                "stochastic": noise(entry.stochastic),
                "processes": entry.accepts.describe(),
                "reference": entry.reference,
                "advice": entry.advice,
            })
        })
        .collect();
    let lines: Vec<String> = if args.markdown {
        catalog::all().map(catalog::Entry::markdown).collect()
    } else {
        let head =
            format!("{:22}{:7}{:30}{:17}{}", "name", "order", "calls a step", "noise", "what, and when");
        let row = |entry: &catalog::Entry| {
            let order = if entry.order == 0 { "-".into() } else { entry.order.to_string() };
            let noise = noise(entry.stochastic);
            format!("{:22}{order:7}{:30}{noise:17}{}: {}", entry.name, entry.nfe, entry.what, entry.advice)
        };
        std::iter::once(head).chain(catalog::all().map(row)).collect()
    };
    output.result(lines.join("\n"), &Value::Array(records))
}

fn noise(stochastic: Stochastic) -> String {
    match stochastic {
        Stochastic::No => "no".into(),
        Stochastic::Yes => "yes".into(),
        Stochastic::If(setting) => format!("if {setting} > 0"),
    }
}
