//! `bench unet`: forward pass and training step of the CIFAR-10 U-Net of Ho et al.

use anyhow::Result;
use sde_core::Prediction;
use sde_nets::{NetConfig, Resampling, TimeFeatures, UnetConfig, UpAttention};
use sde_train::{AdamConfig, AdamKind};
use serde_json::{Map, Value, json};

use super::session::{Session, threads_label};
use crate::bench::case::Case;
use crate::bench::duel::Outcome;
use crate::bench::inventory::{flops, inventory};
use crate::bench::table::{Table, megabytes, ratio, seconds};
use crate::cli::Unet;
use crate::output::Output;

/// The shape of one image.
pub const SHAPE: [usize; 3] = [3, 32, 32];

/// Adam's constants of Ho et al.
pub const ADAM: AdamConfig =
    AdamConfig { kind: AdamKind::Adam, lr: 2e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
/// Their clipping and the decay of their average.
pub const CLIP: f64 = 1.0;
/// The decay of their average.
pub const EMA: f64 = 0.9999;

/// Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B; `quick` has the structure at a fraction of the size.
pub fn config(quick: bool) -> UnetConfig {
    UnetConfig {
        prediction: Prediction::Noise,
        channels: if quick { 8 } else { 128 },
        multipliers: vec![1, 2, 2, 2],
        blocks: if quick { 1 } else { 2 },
        attention: vec![16],
        up_attention: UpAttention::EveryBlock,
        heads: 1,
        dropout: 0.1,
        resampling: Resampling::Conv,
        groups: Some(if quick { 4 } else { 32 }),
        classes: None,
        time: TimeFeatures::Sinusoidal {
            max_period: 10_000.0,
            freq_shift: 1,
            flip_sin_to_cos: false,
            time_scale: 999.0,
            time_shift: 0.0,
        },
    }
}

/// A measurement with what it was.
pub struct Row {
    what: &'static str,
    batch: usize,
    outcome: Outcome,
    flops: Option<f64>,
    peak: f64,
}

/// Runs the suite.
pub fn run(args: &Unet, output: Output) -> Result<()> {
    let config = config(args.measuring.quick);
    let [forward, step] = flops(&inventory(&config, SHAPE[0], SHAPE[1]));
    let mut session = Session::open("unet", &args.measuring, output)?;
    let rows = measure(&mut session, &NetConfig::Unet(config), &SHAPE, &args.batch, Some([forward, step]))?;
    finish(session, rows)
}

/// Forward pass and training step of a network, at each batch size and number of threads, each on workers of its own: their memory is the
/// case's.
pub fn measure(
    session: &mut Session<'_>,
    net: &NetConfig,
    shape: &[usize],
    batches: &[usize],
    flops: Option<[f64; 2]>,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for threads in session.threads() {
        let peak = session.peak(threads)?;
        for &batch in batches {
            let (net, shape) = (net.clone(), shape.to_vec());
            let forward = Case::Forward { net: net.clone(), shape: shape.clone(), batch };
            let step = Case::Step { net, shape, batch, optimiser: ADAM, clip: Some(CLIP), ema: EMA };
            for (i, (what, case)) in [("forward", forward), ("train", step)].into_iter().enumerate() {
                let outcome = session.duel(threads)?.run(&session.plan, &case)?;
                session.say(&format!("{what}, batch {batch}"), &outcome);
                rows.push(Row { what, batch, outcome, flops: flops.map(|f| f[i] * batch as f64), peak });
            }
        }
    }
    Ok(rows)
}

/// Prints and records.
pub fn finish(session: Session<'_>, rows: Vec<Row>) -> Result<()> {
    let headers =
        ["", "threads", "batch", "ours", "PyTorch", "ratio", "GFLOP/s", "of peak", "memory", "PyTorch's"];
    let mut table = Table::new(&headers);
    for row in &rows {
        let rate = row.flops.map(|f| f / row.outcome.seconds().median);
        table.row([
            row.what.to_owned(),
            row.outcome.threads.to_string(),
            row.batch.to_string(),
            seconds(row.outcome.seconds().median),
            row.outcome.their_seconds().map_or("–".into(), |s| seconds(s.median)),
            ratio(row.outcome.ratio()),
            rate.map_or("–".into(), |r| format!("{:.0}", r / 1e9)),
            rate.map_or("–".into(), |r| format!("{:.0} %", 100.0 * r / row.peak)),
            megabytes(row.outcome.memory[0]),
            megabytes(row.outcome.memory[1]),
        ]);
    }
    let parameters = rows.first().and_then(|row| row.outcome.parameters);
    let title =
        format!("{} parameters", super::super::presets::grouped(parameters.unwrap_or_default() as usize));
    let mut more = Map::from_iter([("parameters".to_owned(), json!(parameters))]);
    for what in ["forward", "train"] {
        let of: Vec<&Row> = rows.iter().filter(|row| row.what == what).collect();
        more.insert(what.to_owned(), record(&of));
    }
    session.close(&[(title, table)], Value::Object(more))
}

/// All cases, and the ratios: the worst case's in front.
fn record(rows: &[&Row]) -> Value {
    let case = |row: &&Row| {
        let rate = row.flops.map(|f| f / row.outcome.seconds().median);
        row.outcome.record(json!({
            "batch": row.batch,
            "flops": row.flops,
            "flops_per_second": rate,
            "fraction_of_gemm_peak": rate.map(|r| r / row.peak),
            "images_per_second": row.batch as f64 / row.outcome.wall().median,
        }))
    };
    let named = |row: &Row| format!("batch {}, {}", row.batch, threads_label(row.outcome.threads));
    let mut ratios: Vec<(f64, Value)> = Vec::new();
    for row in rows {
        if let Some(spread) = row.outcome.ratio() {
            let mut entry = spread.record();
            entry["case"] = json!(named(row));
            entry["batch"] = json!(row.batch);
            entry["threads"] = json!(row.outcome.threads);
            entry["clock"] = json!(row.outcome.clock_name());
            ratios.push((spread.median, entry));
        }
    }
    let worst = ratios.iter().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, entry)| entry.clone());
    let ratio = worst.map(|mut worst| {
        worst["cases"] = ratios.into_iter().map(|(_, entry)| entry).collect();
        worst
    });
    json!({ "ratio_to_pytorch": ratio, "cases": rows.iter().map(case).collect::<Vec<_>>() })
}
