//! The command line of `bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::positive;

#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    pub suite: Suite,
}

/// What to time.
#[derive(Debug, Subcommand)]
pub enum Suite {
    /// Every operator of the CIFAR-10 U-Net, forward and backward, at its shapes
    Ops(Ops),
    /// The CIFAR-10 U-Net of Ho et al. (35,746,307 parameters): forward pass and training step
    Unet(Unet),
    /// The FID's Inception network: features of images
    Inception(BenchInception),
    /// An MLP of three layers of 128 for points: forward pass and training step
    Mlp(Mlp),
    /// Updates of a preset, from its data to its log
    Train(BenchTrain),
    /// Samples by a preset's sampler and network, with fresh weights
    Sample(BenchSample),
    /// Samplers by what they reach in few network calls: distance to the flow's end, and to the data
    Sampler(BenchSampler),
    /// What a sampler's step costs besides the network
    Step(BenchStep),
    /// One side of a comparison: requests on standard input, answers on standard output
    #[command(hide = true)]
    Worker(Worker),
}

/// How all suites measure.
#[derive(Debug, Args)]
pub struct Measuring {
    /// The Python that has PyTorch [default: $SDE_BENCH_PYTHON, or python3]
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// Threads of both sides, one measurement for each number [default: 1 and all]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = positive::<usize>)]
    pub threads: Vec<usize>,
    /// Pairs of measurements
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = positive::<usize>)]
    pub repeats: usize,
    /// Tiny networks and short measurements: shows that everything runs, says nothing of speed
    #[arg(long)]
    pub quick: bool,
    /// Let PyTorch cast by itself to this type: bf16; on a GPU with images channels last
    #[arg(long, value_name = "TYPE")]
    pub autocast: Option<String>,
    /// Let PyTorch keep images channels last
    #[arg(long)]
    pub channels_last: bool,
    /// Print the table as Markdown, for docs/results.md
    #[arg(long)]
    pub markdown: bool,
    /// Write the JSON record here too
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub device: super::DeviceArg,
}

#[derive(Debug, Args)]
pub struct Ops {
    /// Samples
    #[arg(long, default_value_t = 8, value_parser = positive::<usize>)]
    pub batch: usize,
    /// Only operators whose name has these words, such as "conv 3x3" or "at 16²"; may be given many times
    #[arg(long, value_name = "WORDS")]
    pub only: Vec<String>,
    #[command(flatten)]
    pub measuring: Measuring,
}

#[derive(Debug, Args)]
pub struct Unet {
    /// Samples, one measurement for each number
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [8, 32], value_parser = positive::<usize>)]
    pub batch: Vec<usize>,
    /// Change a number of the preset that is timed, such as net.dropout=0; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    #[command(flatten)]
    pub measuring: Measuring,
}

#[derive(Debug, Args)]
pub struct BenchInception {
    /// Images, one measurement for each number
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [50], value_parser = positive::<usize>)]
    pub batch: Vec<usize>,
    /// Their side
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive::<usize>)]
    pub size: usize,
    #[command(flatten)]
    pub measuring: Measuring,
}

#[derive(Debug, Args)]
pub struct Mlp {
    /// Points, one measurement for each number
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [512], value_parser = positive::<usize>)]
    pub batch: Vec<usize>,
    #[command(flatten)]
    pub measuring: Measuring,
}

#[derive(Debug, Args)]
pub struct BenchTrain {
    /// A preset's name (`presets` lists them), or a path that ends in .toml
    #[arg(default_value = "cifar10-tiny")]
    pub preset: String,
    /// Change a number of the preset, such as train.batch=64; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    #[command(flatten)]
    pub measuring: Measuring,
}

#[derive(Debug, Args)]
pub struct BenchSample {
    /// A preset's name (`presets` lists them), or a path that ends in .toml
    #[arg(default_value = "cifar10-tiny")]
    pub preset: String,
    /// The sampler, one with a fixed grid [default: the preset's]
    #[arg(long, value_name = "NAME")]
    pub sampler: Option<String>,
    /// Network calls for each sample
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = positive::<usize>)]
    pub nfe: usize,
    /// Samples drawn together, one measurement for each number
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [16], value_parser = positive::<usize>)]
    pub batch: Vec<usize>,
    /// Change a number of the preset, such as net.channels=64; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    #[command(flatten)]
    pub measuring: Measuring,
}

#[derive(Debug, Args)]
pub struct BenchSampler {
    /// Whose data, process and shape: a preset's name, or a path that ends in .toml
    #[arg(default_value = "digits")]
    pub preset: String,
    /// The network of this run instead of the exact field of the data
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Network calls, a column for each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [5, 10, 15, 20, 50, 100], value_parser = positive::<usize>)]
    pub nfe: Vec<usize>,
    /// Only these samplers, adaptive ones at the tolerance that takes so many calls [default: all with a fixed grid]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Examples of the test split that the exact field is made of, and that samples are compared with
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive::<usize>)]
    pub points: usize,
    /// Initial states
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive::<u32>)]
    pub starts: u32,
    /// Seed of the initial states and of the noise
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Change a number of the preset, such as data.path=FOLDER; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Print the table as Markdown
    #[arg(long)]
    pub markdown: bool,
    /// Write the JSON record here too
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Draw error against calls here, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    pub device: super::DeviceArg,
}

#[derive(Debug, Args)]
pub struct BenchStep {
    /// The network whose share is measured: a preset's name, or a path that ends in .toml
    #[arg(default_value = "cifar10-ddpm")]
    pub preset: String,
    /// States in the batch of the network-free step; the network sees 8 of them
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive::<usize>)]
    pub batch: usize,
    /// Change a number of the preset; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Repetitions
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = positive::<usize>)]
    pub repeats: usize,
    /// Print the table as Markdown
    #[arg(long)]
    pub markdown: bool,
    /// Write the JSON record here too
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Worker {
    #[command(flatten)]
    pub device: super::DeviceArg,
}
