//! The command line.

mod bench;
mod compare;
mod eval;
mod eval_nll;
mod eval_paths;
mod eval_score;
mod fid;
mod paths;
mod results;
mod sample;
mod target;
mod weights;

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

pub use bench::{
    Bench, BenchInception, BenchSample, BenchSampler, BenchStep, BenchTrain, Measuring, Mlp, Ops, Suite, Unet,
};
pub use compare::{Compare, Report};
pub use eval::Eval;
pub use eval_nll::{EvalNll, Shard};
pub use eval_paths::EvalPaths;
pub use eval_score::EvalScore;
pub use fid::{EvalFid, FeatureArgs, FidStats};
pub use paths::Paths;
pub use results::Results;
pub use sample::{Edit, Guide, Sample, Samplers};
pub use target::TargetArgs;
pub use weights::WeightsArgs;

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

/// What clap has to say about a command line, in one line.
pub fn complaint(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return error.render().to_string().trim_end().to_owned();
    }
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    let message = paragraphs.next().unwrap_or_default();
    let tip = paragraphs.find_map(|p| p.strip_prefix("tip: ").map(|tip| format!("; hint: {tip}")));
    format!("{message}{}; --help shows what there is", tip.unwrap_or_default())
}

/// A number of things of which there must be one at least.
fn positive<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let number = text.parse().ok().filter(|n| *n > 0).and_then(|n: u64| N::try_from(n).ok());
    number.ok_or_else(|| "expected a whole number, 1 or more".into())
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The tour, in minutes: train on the embedded digits, draw samples, measure likelihood
    Demo(Demo),
    /// Train a preset, or go on with a run
    Train(Train),
    /// Draw samples from a run, or from a known density
    Sample(Box<Sample>),
    /// List the samplers: order, network calls, noise, and which to take when
    Samplers(Samplers),
    /// Measure everything that can be measured of a run
    Eval(Eval),
    /// Measure the likelihood of data under a run, or of points under a known density
    EvalNll(Box<EvalNll>),
    /// Say what is wrong with a score against time: loss, Fokker–Planck residual, asymmetry, paths, error
    #[command(visible_alias = "eval-score-fpe")]
    EvalScore(Box<EvalScore>),
    /// Say how the flow of runs on points carries noise onto a plane: angle to the normal, straightness, sense
    EvalPaths(EvalPaths),
    /// Measure how far the pictures of a run are from others: FID, KID and their kin
    EvalFid(Box<EvalFid>),
    /// Mean and covariance of the features of pictures, as a file that others read, too
    FidStats(FidStats),
    /// Draw what the forward process of a run does to its data, and how the flow carries noise back
    Paths(Paths),
    /// Put what was measured of runs side by side, and say which differences are more than chance
    Compare(Compare),
    /// Write a run as one page of HTML: curves, samples, likelihood, score, samplers, configuration, records
    Report(Report),
    /// Sample from a law known up to its normaliser, and say how right log Z is over runs
    Target(Box<TargetArgs>),
    /// Time this project against PyTorch, and samplers against each other
    Bench(Bench),
    /// Make a run from weights of diffusers or score_sde, or from a file of `export`
    Import(Import),
    /// Write the weights of a run as one file, or as a folder for diffusers
    Export(Export),
    /// Fetch or convert the network that a metric needs
    Weights(WeightsArgs),
    /// Write docs/results.md from the records it shows
    Results(Results),
    /// List the presets
    Presets,
    /// Print every number of a preset, and the size of its network
    Show(Show),
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Seed of everything
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Change a number of the preset, such as train.batch=64; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The run's directory [default: the next number under checkpoints/]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArg,
}

#[derive(Debug, Args)]
pub struct DeviceArg {
    /// Where the network runs: auto, cpu, cuda:N or metal; auto says so where it falls back
    #[arg(long = "device", default_value = "auto")]
    pub name: String,
}

/// How a run is opened.
#[derive(Debug, Args)]
pub struct Opening {
    /// Which weights: raw, or the name of an average [default: the first average]
    #[arg(long, value_name = "NAME")]
    pub weights: Option<String>,
    /// Change a setting, such as sampler.rtol=1e-8; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    #[command(flatten)]
    pub device: DeviceArg,
}

#[derive(Debug, Args)]
pub struct Train {
    /// A preset's name (`presets` lists them), a path that ends in .toml, or with --resume a run's directory
    pub preset: String,
    /// Stop after N updates in all; the schedule's horizon stays the preset's [default: train.steps]
    #[arg(long, value_name = "N", value_parser = positive::<u64>)]
    pub steps: Option<u64>,
    /// Seed of everything [default: 0, or the seed of the run that is resumed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Change a number of the preset, such as train.batch=64; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The run's directory [default: the next number under checkpoints/]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with the run in --out, or else with the newest run of the preset
    #[arg(long)]
    pub resume: bool,
    /// Start from the weights of another run, which the new run keeps a copy of: fine-tuning
    #[arg(long, value_name = "RUN", conflicts_with = "resume")]
    pub from: Option<PathBuf>,
    /// Print the resolved configuration and stop
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// A known density instead of a network.
#[derive(Debug, Args)]
pub struct Oracle {
    /// A mixture of Gaussians instead of a run: .npz or .json with mu [K, D], cov [K, D, D], w (K of them)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["run", "weights"])]
    pub oracle: Option<PathBuf>,
    /// With --oracle, the process: vp, subvp, ve, edm, cosine, linear, ddpm; of matrices cld, blurring, heat, fp-noise, fp-drift, langevin, pair
    #[arg(long, value_name = "NAME", default_value = "vp", requires = "oracle", conflicts_with = "run")]
    pub process: String,
    /// Explicit times, decreasing, .npy; a likelihood takes the first and the last
    #[arg(long, value_name = "FILE")]
    pub times: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Import {
    /// A file, a folder, or a repository OWNER/NAME on the hub; docs/weights.md has the layouts
    pub source: String,
    /// Its layout: auto, diffusers, score-sde or single
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub format: String,
    /// What the file does not tell: data, training, sampler, and of score-sde the network [default: of diffusers cifar10-ddpm,
    /// of score-sde the one preset that fits, of single its own]
    #[arg(long, value_name = "PRESET")]
    pub preset: Option<String>,
    /// The process, where it is another than file or preset say: ddpm, vp or subvp
    #[arg(long, value_name = "NAME")]
    pub process: Option<String>,
    /// Change a number of the preset, such as data.name=folder; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The name of the new configuration [default: that of the source]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The run's directory, which must not exist [default: the next number under checkpoints/]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Export {
    /// The run's directory [default: the newest under checkpoints/]
    pub run: Option<PathBuf>,
    /// The layout: single (one .safetensors file with the configuration in it) or diffusers (a folder)
    #[arg(long, value_name = "NAME", default_value = "single")]
    pub format: String,
    /// The file or folder to write, which must not exist
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Which weights: raw, or the name of an average [default: the first average]
    #[arg(long, value_name = "NAME")]
    pub weights: Option<String>,
}

#[derive(Debug, Args)]
pub struct Show {
    /// A preset's name (`presets` lists them), or a path that ends in .toml
    pub preset: String,
    /// Change a number of the preset, such as train.batch=64; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}
