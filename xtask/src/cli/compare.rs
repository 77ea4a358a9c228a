//! The command lines of `compare` and `report`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct Compare {
    /// The directories of two runs or more; the others are compared with the first
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Also what was measured time by time
    #[arg(long)]
    pub all: bool,
    /// Take the runs of a preset for seeds of it: means over them, and differences run by run
    #[arg(long, conflicts_with = "all")]
    pub seeds: bool,
    /// Print a Markdown table
    #[arg(long)]
    pub markdown: bool,
}

#[derive(Debug, Args)]
pub struct Report {
    /// The run's directory [default: the newest under checkpoints/]
    pub run: Option<PathBuf>,
    /// The page [default: report.html in the run's directory]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// A record of `bench sampler --out`, beside those in the run's records; may be given many times
    #[arg(long, value_name = "FILE")]
    pub bench: Vec<PathBuf>,
}
