//! The command line of `fid-stats` and `eval-fid`.

use std::path::PathBuf;

use clap::Args;

use super::{DeviceArg, Guide, positive};

/// Which features of pictures.
#[derive(Debug, Args)]
pub struct FeatureArgs {
    /// The layer: 64, 192, 768 or 2048 entries, or spatial (sFID)
    #[arg(long, value_name = "LAYER", default_value = "2048")]
    pub dims: String,
    /// How pictures come to 299 by 299: bilinear (pytorch-fid), bilinear-tf1, or bicubic-antialiased (clean-fid)
    #[arg(long, value_name = "WAY", default_value = "bilinear")]
    pub resize: String,
    /// What bytes become: pytorch, from -1 to 1, or tf, (x-128)/128
    #[arg(long, value_name = "NAME", default_value = "pytorch")]
    pub range: String,
    /// Weights of the network [default: what `weights inception` has put under checkpoints/]
    #[arg(long = "inception", value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Take other weights than the published ones; what is measured with them compares with nothing else
    #[arg(long, requires = "weights")]
    pub other_weights: bool,
    /// Pictures that go through the network between two savings; changes no number
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive::<usize>)]
    pub feature_batch: usize,
    /// Where the files of a data set are, if not in its own folder under datasets/
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Take a data set of which files are missing
    #[arg(long)]
    pub allow_partial: bool,
    #[command(flatten)]
    pub device: DeviceArg,
}

#[derive(Debug, Args)]
pub struct FidStats {
    /// The pictures: a data set such as cifar10:train, a folder, or an .npz of samples
    pub source: String,
    /// The statistics, .npz, in the layout of pytorch-fid
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The first N pictures only [default: all]
    #[arg(long, value_parser = positive::<usize>)]
    pub n: Option<usize>,
    #[command(flatten)]
    pub features: FeatureArgs,
}

#[derive(Debug, Args)]
pub struct EvalFid {
    /// What is measured: a run, of which samples are drawn, or pictures: a folder, an .npz of samples, a data set such as
    /// cifar10:test [default: the newest run under checkpoints/]
    pub source: Option<String>,
    /// What it is measured against: statistics (.npz with mu and sigma), or pictures as above
    #[arg(long = "ref", value_name = "SOURCE")]
    pub reference: String,
    /// The number of samples of a run, or the first N pictures [default: 50000 of a run, all of pictures]
    #[arg(long, value_parser = positive::<usize>)]
    pub n: Option<usize>,
    /// The first N pictures of the reference only [default: all]
    #[arg(long, value_name = "N", value_parser = positive::<usize>)]
    pub ref_n: Option<usize>,
    /// What is measured: fid, fid-infinity, kid, prdc (precision, recall, density, coverage), memorisation (of the
    /// reference), is (Inception Score); several with commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "fid")]
    pub metrics: Vec<String>,
    /// FID+: of every measured picture a random square of its shorter side; for panoramas
    #[arg(long)]
    pub squares: bool,
    /// Take no more samples than features have entries, which reads far too high
    #[arg(long)]
    pub allow_small: bool,
    /// Take statistics that do not say of which features they are to be of these
    #[arg(long)]
    pub assume_same_features: bool,
    /// With memorisation, data that was not trained on: how near is near
    #[arg(long, value_name = "SOURCE")]
    pub held_out: Option<String>,
    /// Neighbours of prdc
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = positive::<usize>)]
    pub neighbours: usize,
    /// Subsets of kid
    #[arg(long, value_name = "S", default_value_t = 100, value_parser = positive::<usize>)]
    pub kid_subsets: usize,
    /// Pictures in a subset of kid
    /// [default: 1000, and no subsets of fewer than 2000]
    #[arg(long, value_name = "M", value_parser = positive::<usize>)]
    pub kid_subset_size: Option<usize>,
    #[command(flatten)]
    pub features: FeatureArgs,
    /// Of a run: the sampler [default: the preset's]
    #[arg(long, value_name = "NAME")]
    pub sampler: Option<String>,
    /// Of a run: steps of the sampler [default: the preset's]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Seed of samples, and of random subsets
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Samples of a run drawn together; changes nothing but memory
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive::<usize>)]
    pub batch: usize,
    /// Of a run: which weights, raw or the name of an average [default: the first average]
    #[arg(long, value_name = "NAME")]
    pub weights: Option<String>,
    /// Of a run: change a setting, such as sampler.grid=karras; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Where the record goes, too [default: records/fid-….json of a run]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub guide: Guide,
}
