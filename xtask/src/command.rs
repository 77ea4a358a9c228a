//! The commands.

mod bench;
mod demo;
mod eval_nll;
mod eval_score;
mod export;
mod import;
mod plane;
mod presets;
mod sample;
mod samplers;
mod train;

use anyhow::Result;

use crate::cli::Command;
use crate::output::Output;

/// Runs a command.
pub fn run(command: Command, output: Output) -> Result<()> {
    match command {
        Command::Demo(args) => demo::run(&args, output),
        Command::Train(args) => train::run(&args, output),
        Command::Sample(args) => sample::run(&args, output),
        Command::Samplers(args) => samplers::run(&args, output),
        Command::EvalNll(args) => eval_nll::run(&args, output),
        Command::EvalScore(args) => eval_score::run(&args, output),
        Command::Bench(args) => bench::run(&args, output),
        Command::Import(args) => import::run(&args, output),
        Command::Export(args) => export::run(&args, output),
        Command::Presets => presets::list(output),
        Command::Show(args) => presets::show(&args, output),
    }
}
