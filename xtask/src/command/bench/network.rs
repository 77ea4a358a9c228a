//! What the suites that time a whole network share: the cases, the row of a measurement, the table, and the record.

use anyhow::Result;
use sde_nets::{NetConfig, count_parameters};
use sde_train::EmaLaw;
use serde_json::{Map, Value, json};

use super::session::{Session, threads_label};
use crate::bench::case::Case;
use crate::bench::duel::Outcome;
use crate::bench::inventory::{self, inventory};
use crate::bench::table::{megabytes, ratio, seconds};
use crate::config::Preset;
use crate::figures::grouped;
use crate::table::Table;

/// A measurement with what it was.
pub struct Row {
    /// `forward`, `train` or `sample`: also its key in the record.
    pub what: &'static str,
    /// Samples.
    pub batch: usize,
    /// What it took.
    pub outcome: Outcome,
    /// Operations, counting convolutions directly.
    pub flops: Option<f64>,
    /// Operations a second of large matrix products on as many threads.
    pub peak: f64,
}

/// Operations of a forward pass over one sample, and of forward and backward, where the network's operators are known.
pub fn flops(net: &NetConfig, shape: &[usize]) -> Result<Option<[f64; 2]>> {
    let (NetConfig::Unet(config), &[channels, size, _]) = (net, shape) else { return Ok(None) };
    let items = inventory(config, channels, size);
    // A network of which the inventory does not know every part has other parameters.
    let known = inventory::parameters(&items) == count_parameters(|b| net.build(b, shape))?;
    Ok(known.then(|| inventory::flops(&items)))
}

/// Updates of a preset by `fit`, and the training step in PyTorch that is the same.
pub fn training(preset: &Preset, shape: &[usize], synthetic: bool) -> [Case; 2] {
    let train = &preset.train;
    // How fast the average forgets does not change the time.
    let ema = match train.ema.first().map(|ema| ema.law) {
        Some(EmaLaw::Constant { decay } | EmaLaw::Ramp { decay }) => decay,
        _ => 0.9999,
    };
    let theirs = Case::Step {
        net: preset.net.clone(),
        shape: shape.to_vec(),
        batch: train.batch,
        optimiser: train.optimiser,
        clip: train.clip,
        ema,
    };
    [Case::Fit { preset: Box::new(preset.clone()), synthetic }, theirs]
}

/// Forward pass and training step of a preset's network, at each batch size and number of threads, each on workers of its own: their memory
/// is the case's.
pub fn measure(
    session: &mut Session<'_>,
    preset: &Preset,
    shape: &[usize],
    batches: &[usize],
    synthetic: bool,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let flops = flops(&preset.net, shape)?;
    for threads in session.threads() {
        let peak = session.peak(threads)?;
        for &batch in batches {
            let mut preset = preset.clone();
            preset.train.batch = batch;
            let forward = Case::Forward { net: preset.net.clone(), shape: shape.to_vec(), batch };
            let pairs =
                [("forward", [forward.clone(), forward]), ("train", training(&preset, shape, synthetic))];
            for (i, (what, [ours, theirs])) in pairs.into_iter().enumerate() {
                let outcome = session.duel(threads)?.run_pair(&session.plan, &ours, &theirs)?;
                session.say(&format!("{what}, batch {batch}"), &outcome);
                rows.push(Row { what, batch, outcome, flops: flops.map(|f| f[i] * batch as f64), peak });
            }
        }
    }
    Ok(rows)
}

impl Row {
    /// Operations a second.
    fn rate(&self) -> Option<f64> {
        self.flops.map(|f| f / self.outcome.seconds().median)
    }

    fn record(&self) -> Value {
        let wall = self.outcome.wall().median;
        self.outcome.record(json!({
            "batch": self.batch,
            "flops": self.flops,
            "flops_per_second": self.rate(),
            "fraction_of_gemm_peak": self.rate().map(|r| r / self.peak),
            "per_second": 1.0 / wall,
            "samples_per_second": self.batch as f64 / wall,
        }))
    }

    /// The ratio with what it is of.
    fn ratio(&self) -> Option<(f64, Value)> {
        let spread = self.outcome.ratio()?;
        let mut entry = spread.record();
        entry["case"] = json!(format!("batch {}, {}", self.batch, threads_label(self.outcome.threads)));
        entry["batch"] = json!(self.batch);
        entry["threads"] = json!(self.outcome.threads);
        entry["clock"] = json!(self.outcome.clock_name());
        Some((spread.median, entry))
    }
}

/// Prints and records: `title` says which network, `note` what is done with it, and `more` belongs to the record.
pub fn finish(
    session: Session<'_>,
    rows: &[Row],
    [title, note]: [&str; 2],
    mut more: Map<String, Value>,
) -> Result<()> {
    let headers = [
        "",
        "threads",
        "batch",
        "ours",
        "PyTorch",
        "ratio",
        "per s",
        "samples/s",
        "GFLOP/s",
        "of peak",
        "memory",
        "PyTorch memory",
    ];
    let mut table = Table::new(&headers);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".into());
    for row in rows {
        let per_second = 1.0 / row.outcome.wall().median;
        table.row([
            row.what.to_owned(),
            row.outcome.threads.to_string(),
            row.batch.to_string(),
            seconds(row.outcome.seconds().median),
            or_dash(row.outcome.their_seconds().map(|s| seconds(s.median))),
            ratio(row.outcome.ratio()),
            format!("{per_second:.2}"),
            format!("{:.1}", row.batch as f64 * per_second),
            or_dash(row.rate().map(|r| format!("{:.0}", r / 1e9))),
            or_dash(row.rate().map(|r| format!("{:.0} %", 100.0 * r / row.peak))),
            megabytes(row.outcome.memory[0]),
            megabytes(row.outcome.memory[1]),
        ]);
    }
    let parameters = rows.first().and_then(|row| row.outcome.parameters);
    let title = format!("{title}, {} parameters: {note}", grouped(parameters.unwrap_or_default() as usize));
    more.insert("parameters".into(), json!(parameters));
    for row in rows {
        let same = || rows.iter().filter(|other| other.what == row.what);
        let record = json!({
            "ratio_to_pytorch": worst(same().filter_map(Row::ratio).collect()),
            "cases": same().map(Row::record).collect::<Vec<_>>(),
        });
        more.insert(row.what.into(), record);
    }
    session.close(&[(title, table)], Value::Object(more))
}

/// The largest ratio, with all of them as its `cases`.
fn worst(ratios: Vec<(f64, Value)>) -> Option<Value> {
    let mut worst = ratios.iter().max_by(|a, b| a.0.total_cmp(&b.0))?.1.clone();
    worst["cases"] = ratios.into_iter().map(|(_, entry)| entry).collect();
    Some(worst)
}
