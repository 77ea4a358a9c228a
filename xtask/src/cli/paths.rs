//! The command line of `paths`.

use std::path::PathBuf;

use clap::Args;

use super::positive;

#[derive(Debug, Args)]
pub struct Paths {
    /// The run's directory [default: the newest under checkpoints/]
    pub run: Option<PathBuf>,
    /// How many paths [default: 60 of points, 6 of images]
    #[arg(long, value_name = "N", value_parser = positive::<usize>)]
    pub n: Option<usize>,
    /// How many times are shown, from T to the data
    #[arg(long, value_name = "K", default_value_t = 7, value_parser = several)]
    pub count: usize,
    /// Of points: the two coordinates that are drawn, from 1; those of the velocity come after those of the position
    /// [default: the first and the last of the data]
    #[arg(long, value_name = "I,J", value_delimiter = ',', num_args = 1..=2)]
    pub axes: Vec<usize>,
    /// Seed of starts and noise
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The picture, .svg of points, .png of images [default: paths in the run's records]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub opening: super::Opening,
}

/// Two at least: noise and data.
fn several(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (2..=64).contains(n))
        .ok_or_else(|| "expected a whole number, 2 to 64".into())
}
