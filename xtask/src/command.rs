//! The commands.

mod bench;
mod compare;
mod demo;
mod eval;
mod eval_fid;
mod eval_nll;
mod eval_paths;
mod eval_score;
mod export;
mod fid_stats;
mod import;
mod paths;
mod plane;
mod presets;
mod report;
mod results;
mod sample;
mod samplers;
mod target;
mod train;
mod weights;

use anyhow::Result;

pub use sample::picture;
pub use train::fit_preset;

use crate::cli::Command;
use crate::output::Output;

/// Runs a command.
pub fn run(command: Command, output: Output) -> Result<()> {
    match command {
        Command::Demo(args) => demo::run(&args, output),
        Command::Train(args) => train::run(&args, output),
        Command::Sample(args) => sample::run(&args, output),
        Command::Samplers(args) => samplers::run(&args, output),
        Command::Eval(args) => eval::run(&args, output),
        Command::EvalNll(args) => eval_nll::run(&args, output),
        Command::EvalPaths(args) => eval_paths::run(&args, output),
        Command::EvalScore(args) => eval_score::run(&args, output),
        Command::FidStats(args) => fid_stats::run(&args, output),
        Command::EvalFid(args) => eval_fid::run(&args, output),
        Command::Paths(args) => paths::run(&args, output),
        Command::Compare(args) => compare::run(&args, output),
        Command::Report(args) => report::run(&args, output),
        Command::Target(args) => target::run(&args, output),
        Command::Bench(args) => bench::run(&args, output),
        Command::Import(args) => import::run(&args, output),
        Command::Export(args) => export::run(&args, output),
        Command::Results(args) => results::run(&args, output),
        Command::Weights(args) => weights::run(&args, output),
        Command::Presets => presets::list(output),
        Command::Show(args) => presets::show(&args, output),
    }
}

/// Whether a command trains with a loss that needs gradients of gradients, which have to be switched on before there are threads.
pub fn needs_nested(command: &Command) -> bool {
    matches!(command, Command::Train(args) if train::needs_nested(args))
}
