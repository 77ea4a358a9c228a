//! `bench`: this project timed against PyTorch, and samplers measured against each other.

mod inception;
mod mlp;
mod network;
mod ops;
mod sample;
mod sampler;
mod session;
mod step;
mod train;
mod unet;

use anyhow::Result;

use crate::bench::worker;
use crate::cli::{Bench, Suite};
use crate::device;
use crate::output::Output;

/// Runs a suite.
pub fn run(args: &Bench, output: Output) -> Result<()> {
    match &args.suite {
        Suite::Ops(args) => ops::run(args, output),
        Suite::Unet(args) => unet::run(args, output),
        Suite::Inception(args) => inception::run(args, output),
        Suite::Mlp(args) => mlp::run(args, output),
        Suite::Train(args) => train::run(args, output),
        Suite::Sample(args) => sample::run(args, output),
        Suite::Sampler(args) => sampler::run(args, output),
        Suite::Step(args) => step::run(args, output),
        Suite::Worker(args) => worker::serve(&device::select(&args.device.name, output)?),
    }
}
