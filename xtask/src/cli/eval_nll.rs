//! The options of `eval-nll`.

use std::path::PathBuf;

use clap::Args;

use super::{Opening, Oracle, positive};

/// One of several parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 1.
    pub part: usize,
    /// Of how many.
    pub of: usize,
}

fn shard(text: &str) -> Result<Shard, String> {
    let parsed = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    match parsed {
        Some((part, of)) if 1 <= part && part <= of => Ok(Shard { part, of }),
        _ => Err("expected I/N, part I of N from 1 to N, such as 2/8".into()),
    }
}

#[derive(Debug, Args)]
pub struct EvalNll {
    /// The run's directory [default: the newest under checkpoints/]
    pub run: Option<PathBuf>,
    /// Which data: train or test
    #[arg(long, default_value = "test")]
    pub split: String,
    /// The first N examples only [default: all]
    #[arg(long, value_parser = positive::<usize>)]
    pub n: Option<usize>,
    /// Part I of N of the examples only, 1/N to N/N; the last to be done makes the record of the whole
    #[arg(long, value_name = "I/N", value_parser = shard, conflicts_with_all = ["oracle", "out"])]
    pub shard: Option<Shard>,
    /// Make the record of the whole from parts that are done, with the options they were done with
    #[arg(long, conflicts_with_all = ["shard", "oracle"])]
    pub merge: bool,
    /// What solves the flow: rk45, tsit5, rk23, or a deterministic sampler on a fixed grid, such as tab3 [default: rk45, unless the
    /// preset says otherwise]
    #[arg(long, value_name = "NAME", conflicts_with = "bound")]
    pub sampler: Option<String>,
    /// Steps of a fixed grid; of the discrete bound, of its chain
    #[arg(long, value_name = "N", value_parser = positive::<usize>)]
    pub steps: Option<usize>,
    /// Its times: auto, uniform, power, quadratic, cubic, karras, log-rho or discrete [default: auto]
    #[arg(long, value_name = "NAME")]
    pub grid: Option<String>,
    /// A bound instead of the flow's density: elbo (of the reverse SDE) or discrete (of the reverse chain)
    #[arg(long, value_name = "NAME")]
    pub bound: Option<String>,
    /// Draws of a bound for each example, two network calls each [default: 100]
    #[arg(long, value_name = "S", value_parser = positive::<usize>, requires = "bound")]
    pub draws: Option<usize>,
    /// Variances of the reverse chain: small or large [default: small]
    #[arg(long, value_name = "NAME", requires = "bound")]
    pub variance: Option<String>,
    /// Places in an example's cell whose densities are averaged: a bound that rises with K; needs --divergence exact
    #[arg(long, value_name = "K", value_parser = positive::<usize>)]
    pub dequantise_samples: Option<usize>,
    /// Velocities drawn for each example, of a process that has them (cld) [default: 1]
    #[arg(long, value_name = "K", value_parser = positive::<usize>)]
    pub velocities: Option<usize>,
    /// What is averaged over them: densities (the bound rises with K; needs --divergence exact), or logs
    #[arg(long, value_name = "NAME")]
    pub velocity_average: Option<String>,
    /// Probes of a random divergence [default: the preset's]
    #[arg(long, value_name = "K", value_parser = positive::<usize>, conflicts_with = "bound")]
    pub probes: Option<usize>,
    /// Solves of each example, each with fresh noise [default: the preset's]
    #[arg(long, value_name = "R", value_parser = positive::<usize>)]
    pub repeats: Option<usize>,
    /// The divergence: exact, rademacher, normal, antithetic or orthogonal [default: the preset's]
    #[arg(long, value_name = "NAME", conflicts_with = "bound")]
    pub divergence: Option<String>,
    /// The law taken at T: standard, or (for a known density) exact
    #[arg(long, value_name = "NAME", default_value = "standard")]
    pub prior: String,
    /// Seed of probes and dequantisation
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Examples solved together, and kept together: changes nothing but memory and what a killed call loses [default: the preset's]
    #[arg(long, value_name = "N", value_parser = positive::<usize>)]
    pub batch: Option<usize>,
    #[command(flatten)]
    pub density: Oracle,
    /// With --oracle, the points whose density is wanted, .npy [N, D]
    #[arg(long, value_name = "FILE", requires = "oracle", conflicts_with = "run")]
    pub points: Option<PathBuf>,
    /// Where the log densities in nats go, one for each point, .npy
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub opening: Opening,
}
