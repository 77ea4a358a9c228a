//! `bench mlp`: three hidden layers of 128 on points of the plane.

use anyhow::Result;
use serde_json::Map;

use super::network::{finish, measure};
use super::session::Session;
use crate::cli::Mlp;
use crate::config::{Preset, Source};
use crate::output::Output;

/// The network and its loss; the rest is the preset's for the checkerboard.
fn preset(width: usize) -> Result<Preset> {
    let mut source = Source::find("checkerboard")?;
    let net = format!(
        "kind = \"mlp\"\nprediction = \"noise\"\nhidden = [{width}, {width}, {width}]\ntime_dim = {width}\n\
         [time]\nkind = \"sinusoidal\"\nmax_period = 10000.0\nfreq_shift = 1\nflip_sin_to_cos = false\n\
         time_scale = 999.0\ntime_shift = 0.0\n"
    );
    source.add("net", toml::Value::Table(net.parse()?));
    source.set("data.points=16384")?;
    source.set("loss.weighting={ kind = \"simple\" }")?;
    source.set("loss.time={ kind = \"uniform\", from = 1e-5, to = 1.0 }")?;
    source.parse()
}

/// Runs the suite.
pub fn run(args: &Mlp, output: Output) -> Result<()> {
    let width = if args.measuring.quick { 8 } else { 128 };
    let mut session = Session::open("mlp", &args.measuring, output)?;
    let rows = measure(&mut session, &preset(width)?, &[2], &args.batch, false)?;
    let title = format!("MLP 3×{width} on points of the plane");
    finish(session, &rows, [&title, "forward pass without a tape; training step by `fit`"], Map::new())
}
