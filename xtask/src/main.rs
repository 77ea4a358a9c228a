//! The runner of the workspace: `cargo xtask train cifar10`, `cargo xtask eval-nll`.
//!
//! Nothing here is mathematics: a command reads a configuration, builds what it names, calls the libraries, and writes pictures and records.
//! Results go to standard output, talk to standard error, failures to one line and an exit code (see [`exit`]).

mod bench;
mod build;
mod calibration;
mod cli;
mod command;
mod config;
mod device;
mod exit;
mod features;
mod figures;
mod files;
mod gallery;
mod inception;
mod journal;
mod method;
mod oracle;
mod output;
mod pictures;
mod plot;
mod provenance;
mod records;
mod report;
mod run;
mod sampling;
mod signals;
mod stash;
mod table;
mod target;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

use crate::output::Output;

/// Candle walks its tape recursively: a deep network needs a deep stack.
const STACK: usize = 1 << 28;

fn main() -> ExitCode {
    // Before there are threads.
    sde_nets::ops::prepare_process();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let output = Output { json: false };
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    // Whether help can be written is nobody's failure.
                    let _ = error.print();
                    ExitCode::SUCCESS
                }
                _ => {
                    output.say(cli::complaint(&error));
                    ExitCode::from(exit::USAGE)
                }
            };
        }
    };
    // Before there are threads, too: who needs it and did not get it says so.
    if command::needs_nested(&cli.command) {
        sde_nets::ops::keep_second_derivatives();
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,hf_hub=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let output = Output { json: cli.json };
    // On a thread of the pool, so that an operator finds the others awake. Data is prepared ahead on a thread of its
    // own with the global pool: it must not wait for this one.
    let pool = rayon::ThreadPoolBuilder::new().stack_size(STACK).build();
    let run = |pool: rayon::ThreadPool| pool.install(|| command::run(cli.command, output));
    let result = match pool.map(|pool| std::panic::catch_unwind(AssertUnwindSafe(|| run(pool)))) {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => return ExitCode::from(70),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.say(format!("error: {}", exit::one_line(&error)));
            ExitCode::from(exit::code(&error))
        }
    }
}
