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
    /// Print a Markdown table
    #[arg(long)]
    pub markdown: bool,
}
