//! The command line of `eval-paths`.

use std::path::PathBuf;

use clap::Args;

use super::positive;

#[derive(Debug, Args)]
pub struct EvalPaths {
    /// Directories of runs on points; those of one preset are averaged as seeds [default: the newest under checkpoints/]
    pub runs: Vec<PathBuf>,
    /// How many paths
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = positive::<usize>)]
    pub n: usize,
    /// Steps of a path, four network calls each
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = positive::<usize>)]
    pub steps: usize,
    /// The coordinate that is the plane's normal, from 1 [default: the last]
    #[arg(long, value_name = "I", value_parser = positive::<usize>)]
    pub axis: Option<usize>,
    /// Where the plane is [default: where the held-out data are on the mean]
    #[arg(long, value_name = "Z", allow_negative_numbers = true)]
    pub height: Option<f64>,
    /// Seed of the starts
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The record, a file [default: eval-paths.json in the records of each run]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub opening: super::Opening,
}
