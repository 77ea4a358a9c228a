//! `eval`: everything that can be said of a run, by the commands that say it, each with its usual settings.

use anyhow::Result;
use clap::Parser;

use crate::cli::{Cli, Eval};
use crate::config::{Preset, Source};
use crate::exit::Failure;
use crate::output::Output;
use crate::run::locate;

/// Runs the command.
pub fn run(args: &Eval, output: Output) -> Result<()> {
    let path = locate(args.run.as_deref())?;
    let preset: Preset = Source::read(&path.join("config.toml"))?.parse()?;
    let run = path.display().to_string();
    let common =
        ["--seed".to_owned(), args.seed.to_string(), "--device".to_owned(), args.device.name.clone()];
    let some = args.n.map_or(Vec::new(), |n| vec!["--n".to_owned(), n.to_string()]);
    for command in ["eval-nll", "eval-score"] {
        let words = [vec![command.to_owned(), run.clone()], some.clone(), common.to_vec()].concat();
        call(&words, output)?;
    }
    match args.fid {
        Some(n) => {
            let reference = reference(&preset)?;
            let words =
                ["eval-fid".to_owned(), run, "--ref".to_owned(), reference, "--n".to_owned(), n.to_string()];
            call(&[words.as_slice(), &common].concat(), output)
        }
        None => {
            if preset.data.is_pictures() {
                output.say("FID was not measured, because it takes thousands of samples: --fid 10000");
            }
            Ok(())
        }
    }
}

/// The training data as `eval-fid` names it.
fn reference(preset: &Preset) -> Result<String> {
    let data = &preset.data;
    match &data.path {
        _ if !data.is_pictures() => {
            let text = format!("--fid: the data `{}` are no pictures", data.name);
            Err(Failure::Usage(text).into())
        }
        Some(path) if data.name == "folder" => Ok(path.display().to_string()),
        _ => Ok(format!("{}:train", data.name)),
    }
}

/// Runs another command as if it stood on the command line.
fn call(words: &[String], output: Output) -> Result<()> {
    output.say(format!("$ cargo xtask {}", words.join(" ")));
    let line = std::iter::once("cargo xtask").chain(words.iter().map(String::as_str));
    let cli = Cli::try_parse_from(line).map_err(|e| Failure::Usage(crate::cli::complaint(&e)))?;
    super::run(cli.command, output)
}
