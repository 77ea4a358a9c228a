//! The command line of `eval-score`.

use std::path::PathBuf;

use clap::Args;

use super::positive;

#[derive(Debug, Args)]
pub struct EvalScore {
    /// The run's directory [default: the newest under checkpoints/]
    pub run: Option<PathBuf>,
    /// Which data: train or test
    #[arg(long, default_value = "test", conflicts_with = "oracle")]
    pub split: String,
    /// The first N examples only; of a known density, N draws
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive::<usize>)]
    pub n: usize,
    /// How many times, from the smallest that networks are trained at to T, even in log ρ
    #[arg(long, value_name = "K", default_value_t = 11, value_parser = several)]
    pub count: usize,
    /// Derivatives in K random directions a point; 0 takes all axes, exactly [default: 0 up to 4 dimensions, else 1]
    #[arg(long, value_name = "K")]
    pub probes: Option<usize>,
    /// Of a run, the law of its data where that is a mixture of Gaussians: a file as of --oracle [default: that of the
    /// synthetic set, if it is one of Gaussians or boxes]
    #[arg(long, value_name = "FILE", conflicts_with = "oracle")]
    pub law: Option<PathBuf>,
    /// Where the law is known, also what the score costs the likelihood of its flow: KL and its terms J_SM and J_Diff, J_Fisher, and
    /// the suprema M and m of the residual's and the rate's integrals; minutes for a network
    #[arg(long)]
    pub theory: bool,
    #[command(flatten)]
    pub density: super::Oracle,
    /// Seed of noise and directions
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Points in work together; changes nothing but memory [default: the preset's, of likelihood]
    #[arg(long, value_name = "N", value_parser = positive::<usize>)]
    pub batch: Option<usize>,
    /// Where record and pictures go, a directory [default: the run's records; of a known density nowhere]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub opening: super::Opening,
}

/// Two at least: the first and the last time.
fn several(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n >= 2).ok_or_else(|| "expected a whole number, 2 or more".into())
}
