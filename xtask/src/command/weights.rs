//! `weights`: the network that a metric needs, fetched or read, verified, and put where the metric looks for it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::build::sampler::unknown;
use crate::cli::WeightsArgs;
use crate::exit::Failure;
use crate::inception::{self, Found};
use crate::output::{Output, write_whole};

/// A copy of pytorch-fid's file: what comes is compared with the hash of the published weights.
const REPOSITORY: &str = "nateraw/inception-v3-fid";
const FILE: &str = "pt_inception-2015-12-05-6726825d.pth";

/// Runs the command.
pub fn run(args: &WeightsArgs, output: Output) -> Result<()> {
    if args.network != "inception" {
        return Err(unknown("network of a metric", &args.network, &["inception"]).into());
    }
    let source = match &args.from {
        None => fetch(REPOSITORY, FILE, output)?,
        Some(from) if Path::new(from).exists() => PathBuf::from(from),
        Some(from) => on_the_hub(from, output)?,
    };
    let Found { weights, sha256 } = inception::verified(&source)?;
    let out = args.out.clone().unwrap_or_else(inception::place);
    write_whole(&out, &weights.to_safetensors()?)?;
    let classes = weights.get("fc.weight").is_some();
    let record = json!({
        "command": "weights",
        "network": "inception-2015-12-05",
        "source": source.display().to_string(),
        "weights_sha256": sha256,
        "tensors": weights.len(),
        "layer_of_classes": classes,
        "out": out.display().to_string(),
    });
    let note = if classes {
        "; its layer of classes is taken as it is"
    } else {
        " (without the layer of classes, so without the Inception Score)"
    };
    output.result(format!("{}: the published weights of 2015-12-05, verified{note}", out.display()), &record)
}

fn on_the_hub(name: &str, output: Output) -> Result<PathBuf> {
    let mut parts = name.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(owner), Some(repository), Some(file)) if !owner.is_empty() => {
            fetch(&format!("{owner}/{repository}"), file, output)
        }
        _ => {
            Err(Failure::Usage(format!("--from {name}: no such file, and no OWNER/NAME/FILE on the hub"))
                .into())
        }
    }
}

fn fetch(repository: &str, file: &str, output: Output) -> Result<PathBuf> {
    output.say(format!("looking for {file} of {repository}"));
    let found = sde_data::hub::model_file(repository, file, &mut |_| {});
    found.context("if this machine has no network, name a file that you have: --from FILE")
}
