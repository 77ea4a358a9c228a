//! `bench inception`: features of images by the FID's Inception network, from levels to 2048 numbers, on random images.
//!
//! PyTorch's side is the network as pytorch-fid runs it.

use anyhow::Result;
use serde_json::Map;

use super::network::{Row, finish};
use super::session::Session;
use crate::bench::case::Case;
use crate::cli::BenchInception;
use crate::output::Output;

/// Operations of its convolutions on one image, which are nearly all.
const FLOPS: f64 = 11_422_336_192.0;

/// Runs the suite.
pub fn run(args: &BenchInception, output: Output) -> Result<()> {
    let mut session = Session::open("inception", &args.measuring, output)?;
    let mut rows = Vec::new();
    for threads in session.threads() {
        let peak = session.peak(threads)?;
        for &batch in &args.batch {
            let case = Case::Features { batch, size: args.size };
            let outcome = session.duel(threads)?.run(&session.plan, &case)?;
            session.say(&format!("features, batch {batch}"), &outcome);
            rows.push(Row { what: "features", batch, outcome, flops: Some(FLOPS * batch as f64), peak });
        }
    }
    let note = format!("features of 3×{0}×{0} images, from levels on; PyTorch as pytorch-fid", args.size);
    finish(session, &rows, ["Inception-V3 of the FID", &note], Map::new())
}
