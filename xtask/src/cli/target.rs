//! The command line of `target`.

use std::path::PathBuf;

use clap::Args;

use super::positive;
use crate::target::{MoleculeConfig, TargetConfig};

#[derive(Debug, Args)]
pub struct TargetArgs {
    /// What is sampled: mixture, funnel, rings, gaussian, cox, vae, alanine
    pub name: String,
    /// With what: hmc, nuts, mala, langevin, ais, smc, vi-nf; pis-grad, pis-nn (trained first, or of --run), pis-gt (the best control, of mixtures)
    #[arg(long, value_name = "NAME", default_value = "smc")]
    pub sampler: String,
    /// pis-grad, pis-nn: a run of `train pis-…`; given many times, its runs take turns
    #[arg(long = "run", value_name = "RUN")]
    pub trained: Vec<PathBuf>,
    /// Runs, each with noise of its own seed
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = positive::<usize>)]
    pub runs: usize,
    /// Samples a run
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = positive::<usize>)]
    pub n: usize,
    /// Seed of the first run; the others follow
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Change a number of the sampler, such as hmc.steps=20; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The deviation of the Gaussian that chains start from [default: 1; alanine: 0.01 nm about a known structure]
    #[arg(long, value_name = "S")]
    pub start: Option<f64>,
    /// Dimensions of the funnel, of the Gaussian, or cells of the Cox process [default: 10, 2, 1600]
    #[arg(long, value_name = "D", value_parser = positive::<usize>)]
    pub dim: Option<usize>,
    /// Funnel: the variance of its neck; the thesis has 9, its public code 1 [default: 9]
    #[arg(long, value_name = "V")]
    pub variance: Option<f64>,
    /// The points of the Cox process, a CSV file
    #[arg(long, value_name = "FILE")]
    pub points: Option<PathBuf>,
    /// The autoencoder whose posterior is sampled, a run of `train vae-digits`
    #[arg(long, value_name = "RUN")]
    pub vae: Option<PathBuf>,
    /// The test image that the posterior is of [default: the first]
    #[arg(long, value_name = "N")]
    pub image: Option<usize>,
    /// Alanine: the temperature in kelvin
    #[arg(long, value_name = "K", default_value_t = 300.0)]
    pub temperature: f64,
    /// Alanine: in implicit water, not in vacuum
    #[arg(long)]
    pub water: bool,
    /// Alanine: how many auxiliary coordinates there are
    #[arg(long, value_name = "M", default_value_t = 66)]
    pub auxiliary: usize,
    /// What log Z is compared with, where the target does not know it
    #[arg(long, value_name = "LOGZ", allow_negative_numbers = true)]
    pub truth: Option<f64>,
    /// Alanine: samples whose torsions are the reference, as written by --save
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Write the samples of the first run, resampled by their weights, as .npy
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Draw the samples of the first run in the plane, resampled by their weights, as PNG
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Write the record
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl TargetArgs {
    /// The target that is meant.
    pub fn target(&self) -> TargetConfig {
        TargetConfig {
            name: self.name.clone(),
            dim: self.dim,
            variance: self.variance,
            points: self.points.clone(),
            vae: self.vae.clone(),
            image: self.image,
            start: self.start,
            molecule: Some(MoleculeConfig {
                temperature: self.temperature,
                water: self.water,
                auxiliary: self.auxiliary,
            }),
        }
    }
}
