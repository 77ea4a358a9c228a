//! The command line of `eval`.

use std::path::PathBuf;

use clap::Args;

use super::{DeviceArg, positive};

/// With --json a record of each command, one a line.
#[derive(Debug, Args)]
pub struct Eval {
    /// The run's directory [default: the newest under checkpoints/]
    pub run: Option<PathBuf>,
    /// Of likelihood and score, the first N held-out examples only [default: all, and 256]
    #[arg(long, value_parser = positive::<usize>)]
    pub n: Option<usize>,
    /// Draw N samples and measure their FID to the training data, too
    #[arg(long, value_name = "N", value_parser = positive::<usize>)]
    pub fid: Option<usize>,
    /// Seed of everything
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub device: DeviceArg,
}
