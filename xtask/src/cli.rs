//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Train, sample and evaluate score-based diffusion models.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Print one JSON record on standard output instead of a summary
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train on the embedded digits, draw a sheet of samples, measure their likelihood: the tour, in minutes
    Demo(Demo),
    /// Train a preset
    Train(Train),
    /// Draw samples from a run, or from a known density
    Sample(Sample),
    /// Measure the likelihood of held-out data under a run, or of points under a known density
    EvalNll(EvalNll),
    /// List the presets
    Presets,
    /// Print a preset, every number of it, and the size of its network
    Show(Show),
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Seed of everything
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Change a number of the preset
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Where the run goes [default: the next number under checkpoints/]
    #[arg(long)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArg,
}

#[derive(Debug, Args)]
pub struct DeviceArg {
    /// auto, cpu, cuda:N or metal
    #[arg(long = "device", default_value = "auto")]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct Train {
    /// A preset's name, or a TOML file
    pub preset: String,
    /// Stop after this many updates in all; the schedule's horizon stays the preset's [default: train.steps]
    #[arg(long)]
    pub steps: Option<u64>,
    /// Seed of everything
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Change a number of the preset
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The run's directory [default: the next number under checkpoints/]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Go on with the run in --out, or with the newest run of the preset
    #[arg(long)]
    pub resume: bool,
    /// Print the resolved configuration and stop
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// A known density instead of a network.
#[derive(Debug, Args)]
pub struct Oracle {
    /// A mixture of Gaussians as .npz or .json with w [K], mu [K,D], cov [K,D,D]: exact, in f64
    #[arg(long, value_name = "FILE")]
    pub oracle: Option<PathBuf>,
    /// The forward process of a known density
    #[arg(long, default_value = "vp")]
    pub process: String,
    /// Explicit times, decreasing, as .npy; for a likelihood its first and last time
    #[arg(long, value_name = "FILE")]
    pub times: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Sample {
    /// The run [default: the newest under checkpoints/]
    pub run: Option<PathBuf>,
    /// The sampler [default: the preset's]
    #[arg(long, value_name = "NAME")]
    pub sampler: Option<String>,
    /// Steps of the sampler, each one network call
    #[arg(long)]
    pub steps: Option<usize>,
    /// The time grid: uniform, power, quadratic, karras, log-rho, discrete
    #[arg(long)]
    pub grid: Option<String>,
    /// How many samples
    #[arg(long, conflicts_with = "seeds")]
    pub n: Option<u32>,
    /// Which samples: sample k is the same in any range, at any batch size
    #[arg(long, value_name = "A-B")]
    pub seeds: Option<String>,
    /// Seed of the whole family of samples
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Samples drawn together; changes nothing but memory
    #[arg(long, default_value_t = 64)]
    pub batch: usize,
    #[command(flatten)]
    pub density: Oracle,
    /// The initial states x_T, as .npy
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// The noise of a stochastic sampler, .npy [steps, B, D]
    #[arg(long, value_name = "FILE")]
    pub noise: Option<PathBuf>,
    /// Where the result goes: a .npy file, or a directory for pictures and arrays
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// End with the expected data given the last state (networks do, known densities do not)
    #[arg(long, overrides_with = "no_denoise")]
    pub denoise: bool,
    /// End with the last state itself
    #[arg(long)]
    pub no_denoise: bool,
    /// Which weights: raw, or the name of an average [default: the first average]
    #[arg(long)]
    pub weights: Option<String>,
    /// Change a setting, such as sampler.rtol=1e-8
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    #[command(flatten)]
    pub device: DeviceArg,
}

#[derive(Debug, Args)]
pub struct EvalNll {
    /// The run [default: the newest under checkpoints/]
    pub run: Option<PathBuf>,
    /// train or test
    #[arg(long, default_value = "test")]
    pub split: String,
    /// The first N examples only
    #[arg(long)]
    pub n: Option<usize>,
    /// Probes of the divergence's estimate
    #[arg(long)]
    pub probes: Option<usize>,
    /// Solves of each example, each with fresh noise
    #[arg(long)]
    pub repeats: Option<usize>,
    /// exact, rademacher or normal
    #[arg(long)]
    pub divergence: Option<String>,
    /// The law taken at T: standard, or (for a known density) exact
    #[arg(long, default_value = "standard")]
    pub prior: String,
    /// Seed of probes and dequantisation
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Examples solved together; changes nothing but memory
    #[arg(long)]
    pub batch: Option<usize>,
    #[command(flatten)]
    pub density: Oracle,
    /// The points whose density under --oracle is wanted, .npy [N, D]
    #[arg(long, value_name = "FILE")]
    pub points: Option<PathBuf>,
    /// Where the log densities go, one for each point, .npy
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Which weights: raw, or the name of an average [default: the first average]
    #[arg(long)]
    pub weights: Option<String>,
    /// Change a setting, such as sampler.rtol=1e-8
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    #[command(flatten)]
    pub device: DeviceArg,
}

#[derive(Debug, Args)]
pub struct Show {
    /// A preset's name, or a TOML file
    pub preset: String,
    /// Change a number of the preset
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}
