//! `eval-fid`: how far the features of samples or pictures are from those of others.

mod measure;
mod reference;
mod subject;

use anyhow::Result;
use sde_eval::FeatureNetwork;
use serde_json::{Value, json};

use self::measure::Metrics;
use self::reference::Reference;
use self::subject::Subject;
use super::sample::merge;
use crate::cli::EvalFid;
use crate::features::{self, Features};
use crate::output::{Output, save_record};
use crate::provenance::revision;

/// Runs the command.
pub fn run(args: &EvalFid, output: Output) -> Result<()> {
    let metrics = Metrics::named(&args.metrics)?;
    let network = features::network(&args.features, output)?;
    // What cannot be compared is told before hours of work.
    let mut subject = Subject::open(args, output)?;
    metrics.check_size(subject.len(), &network, args, output)?;
    let reference = Reference::open(args, &network, &metrics, output)?;
    let gallery = subject.gallery(args, output)?;
    let gallery = if args.squares { gallery.squares(args.seed) } else { gallery };
    let found = Features::of(&network, &gallery, args.features.feature_batch, output)?;
    let (measured, lines) = metrics.measure(&found, &reference, args, output)?;

    let mut record = subject.record();
    let of = json!({
        "command": "eval-fid",
        "n": found.len(),
        "seed": args.seed,
        "space": found.space(),
        "reference": reference.record(),
        "squares": args.squares,
        "allow_small": args.allow_small,
        "code_revision": revision(),
    });
    merge(&mut record, of);
    merge(&mut record, Value::Object(measured));
    for place in subject.place().iter().chain(&args.out) {
        save_record(place, &record)?;
    }
    let name = reference.name.clone();
    found.remove()?;
    reference.remove()?;
    subject.remove()?;
    let head = format!("{} against {}; {}", subject.describe(), name, features::words(network.space()));
    output.result([vec![head], lines].concat().join("\n"), &record)
}
