//! `bench train`: updates by `fit` on a preset with its data, against the bare training step in PyTorch.

use anyhow::Result;
use sde_data::Split;
use serde_json::{Map, json};

use super::network::{Row, finish, flops, training};
use super::session::Session;
use crate::bench::stand_in;
use crate::build::Use;
use crate::cli::BenchTrain;
use crate::config::Source;
use crate::output::Output;

/// Seconds that a measurement lasts: the first batch of a call is not prepared ahead, and must not weigh.
const AT_LEAST: f64 = 2.0;

/// Runs the suite.
pub fn run(args: &BenchTrain, output: Output) -> Result<()> {
    let mut source = Source::find(&args.preset)?;
    args.sets.iter().try_for_each(|set| source.set(set))?;
    let preset = source.score()?;
    preset.train.check()?;
    let synthetic = stand_in::needed(&preset.data);
    let shape = if synthetic {
        output.say(format!("{} is not on the disk: random images stand in for it", preset.data.name));
        stand_in::images(&preset.data)?.set.shape().to_vec()
    } else {
        preset.data.load(Split::Train, Use::Training, 0, output)?.set.shape().to_vec()
    };
    let mut session = Session::open("train", &args.measuring, output)?;
    if !session.quick() {
        session.plan.at_least = AT_LEAST;
    }
    let batch = preset.train.batch;
    let [ours, theirs] = training(&preset, &shape, synthetic);
    let flops = flops(&preset.net, &shape)?.map(|f| f[1] * batch as f64);
    let mut rows = Vec::new();
    for threads in session.threads() {
        let peak = session.peak(threads)?;
        let outcome = session.duel(threads)?.run_pair(&session.plan, &ours, &theirs)?;
        session.say(&format!("an update of {}", preset.name), &outcome);
        rows.push(Row { what: "train", batch, outcome, flops, peak });
    }
    let more = [("preset".to_owned(), json!(preset.name)), ("synthetic_data".to_owned(), json!(synthetic))];
    let note = "updates by `fit`, data included; PyTorch without";
    finish(session, &rows, [&preset.name, note], Map::from_iter(more))
}
