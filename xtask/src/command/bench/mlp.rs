//! `bench mlp`: three hidden layers of 128 on points of the plane.

use anyhow::Result;
use sde_core::Prediction;
use sde_nets::{MlpConfig, NetConfig, TimeFeatures};

use super::session::Session;
use super::unet::{finish, measure};
use crate::cli::Mlp;
use crate::output::Output;

/// Runs the suite.
pub fn run(args: &Mlp, output: Output) -> Result<()> {
    let width = if args.measuring.quick { 8 } else { 128 };
    let net = NetConfig::Mlp(MlpConfig {
        prediction: Prediction::Noise,
        hidden: vec![width; 3],
        time_dim: width,
        time: TimeFeatures::Sinusoidal {
            max_period: 10_000.0,
            freq_shift: 1,
            flip_sin_to_cos: false,
            time_scale: 999.0,
            time_shift: 0.0,
        },
        state: None,
    });
    let mut session = Session::open("mlp", &args.measuring, output)?;
    let rows = measure(&mut session, &net, &[2], &args.batch, None)?;
    finish(session, rows)
}
