//! `bench sample`: a batch of samples by a sampler, against as many calls of the same network in PyTorch.

use anyhow::Result;
use serde_json::{Map, json};

use super::network::{Row, finish, flops};
use super::session::Session;
use crate::bench::case::Case;
use crate::cli::BenchSample;
use crate::config::Source;
use crate::exit::Failure;
use crate::output::Output;

/// Runs the suite.
pub fn run(args: &BenchSample, output: Output) -> Result<()> {
    let mut source = Source::find(&args.preset)?;
    source.put("sampler", "steps", args.nfe as i64);
    // So that there are as many network calls as steps.
    source.put("sampler", "denoise", false);
    if let Some(name) = &args.sampler {
        source.put("sampler", "name", name.as_str());
    }
    args.sets.iter().try_for_each(|set| source.set(set))?;
    let mut preset = source.score()?;
    preset.sampler.resolve(&preset.process)?;
    let (shape, _) = preset.data.facts(output)?;
    let Some(nfe) = preset.sampler.nfe(preset.process.build()?.as_ref())? else {
        let text = format!("--sampler {}: its network calls depend on the weights", preset.sampler.name);
        return Err(Failure::Usage(text).into());
    };
    let mut session = Session::open("sample", &args.measuring, output)?;
    let flops = flops(&preset.net, &shape)?;
    let mut rows = Vec::new();
    for threads in session.threads() {
        let peak = session.peak(threads)?;
        for &batch in &args.batch {
            let case = Case::Sampling {
                net: preset.net.clone(),
                shape: shape.clone(),
                batch,
                nfe,
                process: preset.process.clone(),
                sampler: Box::new(preset.sampler.clone()),
            };
            let outcome = session.duel(threads)?.run(&session.plan, &case)?;
            session.say(&format!("{batch} samples of {}", preset.name), &outcome);
            let flops = flops.map(|f| f[0] * (nfe * batch) as f64);
            rows.push(Row { what: "sample", batch, outcome, flops, peak });
        }
    }
    let more = [
        ("preset".to_owned(), json!(preset.name)),
        ("sampler".to_owned(), json!(preset.sampler)),
        ("nfe".to_owned(), json!(nfe)),
    ];
    let note = format!("samples by {}, {nfe} network calls", preset.sampler.name);
    finish(session, &rows, [&preset.name, &note], Map::from_iter(more))
}
