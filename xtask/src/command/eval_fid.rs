//! `eval-fid`: how far the features of samples or pictures are from those of others.

mod measure;
mod metric;
mod reference;
mod subject;

use anyhow::Result;
use sde_eval::FeatureNetwork;
use serde_json::{Value, json};

use self::measure::Pair;
use self::metric::Metrics;
use self::reference::Reference;
use self::subject::{Subject, earlier};
use super::sample::merge;
use crate::cli::EvalFid;
use crate::features::{self, Features};
use crate::output::{Output, save_record};
use crate::provenance::{device_name, revision};

/// Runs the command.
pub fn run(args: &EvalFid, output: Output) -> Result<()> {
    let metrics = Metrics::named(&args.metrics)?;
    let (network, logits) = features::networks(&args.features, metrics.has_score(), output)?;
    // What cannot be compared is told before hours of work.
    let mut subject = Subject::open(args, output)?;
    metrics.check_pictures(subject.len(), "pictures to measure", network.dim(), args)?;
    let reference = Reference::open(args, &network, &metrics, output)?;
    let gallery = subject.gallery(args, output)?;
    let gallery = if args.squares { gallery.squares(args.seed) } else { gallery };
    let mut own = None;
    let found: &Features = match &reference.computed {
        Some(computed) if computed.are_of(&network, &gallery)? => computed,
        _ => own.insert(Features::of(&network, &gallery, args.features.feature_batch, output)?),
    };
    let classes = match &logits {
        Some(logits) => Some(Features::of(logits, &gallery, args.features.feature_batch, output)?),
        None => None,
    };

    let mut record = subject.record();
    let of = json!({
        "command": "eval-fid",
        "n": gallery.len(),
        "seed": args.seed,
        "space": network.space(),
        "reference": reference.record(),
        "squares": args.squares,
        "allow_small": args.allow_small,
        "device": device_name(network.network().device()),
        "code_revision": revision(),
    });
    merge(&mut record, of);
    let place = subject.place(&record, &reference.name);
    let already = place.as_deref().and_then(|place| earlier(place, &record));
    let pair = Pair { found, classes: classes.as_ref(), reference: &reference, args };
    let (measured, lines) = metrics.measure(&pair, output)?;
    merge(&mut record, Value::Object(measured));
    // What an earlier call has measured of the same samples stays.
    let record = already.map_or(record.clone(), |mut all| {
        merge(&mut all, record);
        all
    });
    for place in place.iter().chain(&args.out) {
        save_record(place, &record)?;
    }
    let head =
        format!("{} against {}; {}", subject.describe(), reference.name, features::words(network.space()));
    output.result([vec![head], lines].concat().join("\n"), &record)?;
    // Only now that the numbers are out.
    own.into_iter().chain(classes).try_for_each(Features::remove)?;
    reference.remove()?;
    subject.remove()
}
