//! The command line of `results`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct Results {
    /// Where the page and the records are
    #[arg(long, value_name = "DIR", default_value = "docs/results")]
    pub from: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "docs/results.md")]
    pub out: PathBuf,
    /// Write nothing, and fail if the file is not what would be written
    #[arg(long)]
    pub check: bool,
}
