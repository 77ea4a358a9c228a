//! `eval`: everything that can be said of a run, by the commands that say it, each with its usual settings.

use anyhow::Result;
use clap::Parser;

use crate::cli::{Cli, Eval};
use crate::config::{Preset, Source};
use crate::exit::{Failure, one_line};
use crate::inception;
use crate::method::diffflow::{self, DiffFlowPreset};
use crate::output::Output;
use crate::run::locate;

/// Runs the command.
pub fn run(args: &Eval, output: Output) -> Result<()> {
    let path = locate(args.run.as_deref())?;
    let source = Source::read(&path.join("config.toml"))?;
    // A drift and a score are measured as their flow, whose score is not known.
    let (preset, commands): (_, &[&str]) = match source.method() {
        Some(diffflow::NAME) => (source.parse::<DiffFlowPreset>()?.as_score()?, &["eval-nll"]),
        _ => (source.score()?, &["eval-nll", "eval-score"]),
    };
    let run = path.display().to_string();
    let reference = args.fid.map(|_| reference(&preset)).transpose()?;
    if reference.is_some() && !inception::place().is_file() {
        inception::locate(None, false)?;
    }
    let common =
        ["--seed".to_owned(), args.seed.to_string(), "--device".to_owned(), args.device.name.clone()];
    let some = args.n.map_or(Vec::new(), |n| vec!["--n".to_owned(), n.to_string()]);
    // What fails is told, and the rest is measured all the same.
    let mut first = None;
    let mut went = |result: Result<()>| {
        if let Err(error) = result {
            output.say(format!("error: {}", one_line(&error)));
            first.get_or_insert(error);
        }
    };
    for command in commands {
        let words = [vec![(*command).to_owned(), run.clone()], some.clone(), common.to_vec()].concat();
        went(call(&words, output));
    }
    match (args.fid, reference) {
        (Some(n), Some(reference)) => {
            let words = ["eval-fid".to_owned(), run, "--n".to_owned(), n.to_string()];
            went(call(&[words.as_slice(), &reference, &common].concat(), output));
        }
        _ if preset.data.is_pictures() => {
            output.say("FID was not measured, because it takes thousands of samples: --fid 10000");
        }
        _ => {}
    }
    first.map_or(Ok(()), Err)
}

/// The training data as `eval-fid` names it.
fn reference(preset: &Preset) -> Result<Vec<String>> {
    let data = &preset.data;
    match &data.path {
        _ if !data.is_pictures() => {
            let text = format!("--fid: the data `{}` are no pictures", data.name);
            Err(Failure::Usage(text).into())
        }
        Some(path) if data.name == "folder" => Ok(vec!["--ref".into(), path.display().to_string()]),
        path => {
            let mut words = vec!["--ref".into(), format!("{}:train", data.name)];
            words.extend(path.iter().flat_map(|path| ["--data".into(), path.display().to_string()]));
            words.extend(data.allow_partial.then(|| "--allow-partial".into()));
            Ok(words)
        }
    }
}

/// Runs another command as if it stood on the command line.
fn call(words: &[String], output: Output) -> Result<()> {
    output.say(format!("$ cargo xtask {}", words.join(" ")));
    let line = std::iter::once("cargo xtask").chain(words.iter().map(String::as_str));
    let cli = Cli::try_parse_from(line).map_err(|e| Failure::Usage(crate::cli::complaint(&e)))?;
    super::run(cli.command, output)
}
