//! `fid-stats`: mean and covariance of the features of pictures, in a file that pytorch-fid reads, too.

use anyhow::Result;
use sde_eval::Statistics;
use serde_json::json;

use crate::cli::FidStats;
use crate::features::{self, Features};
use crate::gallery::Gallery;
use crate::output::{Output, whole};
use crate::provenance::revision;

/// Runs the command.
pub fn run(args: &FidStats, output: Output) -> Result<()> {
    let gallery = Gallery::open(&args.source, args.n, &args.features, output)?;
    let (network, _) = features::networks(&args.features, false, output)?;
    let found = Features::of(&network, &gallery, args.features.feature_batch, output)?;
    let statistics = Statistics::new(&found.moments()?, found.space(), &found.source, &found.split)?;
    whole(&args.out, |aside| Ok(statistics.write(aside)?))?;
    let record = json!({
        "command": "fid-stats",
        "source": found.source,
        "split": found.split,
        "n": found.len(),
        "space": found.space(),
        "code_revision": revision(),
        "out": args.out.display().to_string(),
    });
    let text = format!(
        "{}: mean and covariance of {} pictures of {} ({})",
        args.out.display(),
        found.len(),
        found.source,
        features::words(found.space())
    );
    output.result(text, &record)?;
    found.remove()
}
