//! `bench ops`: every operator of the CIFAR-10 U-Net at its shapes, weighted by how often a training step uses it.

use anyhow::{Result, bail};
use sde_nets::NetConfig;
use serde_json::{Value, json};

use super::session::{Session, threads_label};
use super::unet::{SHAPE, preset};
use crate::bench::case::{Case, Operator, Pass, Update};
use crate::bench::duel::Outcome;
use crate::bench::flops::Work;
use crate::bench::inventory::{inventory, parameters};
use crate::bench::table::{ratio, seconds};
use crate::cli::Ops;
use crate::exit::Failure;
use crate::output::Output;
use crate::table::Table;

/// One pass of one operator, and how often a training step makes it.
struct Row {
    label: String,
    pass: Pass,
    count: usize,
    work: Work,
    outcome: Outcome,
}

/// Runs the suite.
pub fn run(args: &Ops, output: Output) -> Result<()> {
    let cases = cases(args)?;
    let mut session = Session::open("ops", &args.measuring, output)?;
    let (mut tables, mut records) = (Vec::new(), Vec::new());
    for threads in session.threads() {
        let peak = session.peak(threads)?;
        let mut duel = session.duel(threads)?;
        let mut rows = Vec::new();
        for (op, pass, count) in &cases {
            let case = Case::Op { op: op.clone(), pass: *pass, batch: args.batch };
            let outcome = duel.run(&session.plan, &case)?;
            let label = op.label();
            session.say(&format!("{label}, {}", pass.name()), &outcome);
            rows.push(Row { label, pass: *pass, count: *count, work: op.work(*pass, args.batch), outcome });
        }
        tables.push((title(&rows, threads, args.batch), table(&rows, peak)));
        records.push(record(&rows, threads, peak));
    }
    session.close(&tables, json!({ "batch": args.batch, "threads": records }))
}

/// The operators asked for: those of the network, and a few by themselves.
fn cases(args: &Ops) -> Result<Vec<(Operator, Pass, usize)>> {
    let NetConfig::Unet(config) = preset(args.measuring.quick, &[])?.net else {
        bail!("the preset is no U-Net")
    };
    let items = inventory(&config, SHAPE[0], SHAPE[1]);
    let mut cases: Vec<(Operator, Pass, usize)> = items
        .iter()
        .flat_map(|item| item.passes().into_iter().map(|(pass, count)| (item.op.clone(), pass, count)))
        .collect();
    let channels = config.channels;
    let alone = [
        Operator::Softmax { positions: 256 },
        Operator::Attention { channels: 2 * channels, heads: 1, size: 8 },
        Operator::Silu { channels, size: 32 },
        // Of an image of MNIST, what a learned process makes once in an update.
        Operator::Rotation { size: if args.measuring.quick { 64 } else { 784 } },
    ];
    cases.extend(alone.into_iter().flat_map(|op| [(op.clone(), Pass::Forward, 0), (op, Pass::Backward, 0)]));
    // The sizes of the network's tensors matter to neither side so much as their sum.
    let sizes: Vec<usize> = items
        .iter()
        .flat_map(|item| {
            std::iter::repeat_n(
                parameters(&[crate::bench::inventory::Item { count: 1, ..item.clone() }]),
                item.count,
            )
        })
        .filter(|n| *n > 0)
        .collect();
    for what in [Update::Adam, Update::Ema] {
        cases.push((Operator::Update { what, sizes: sizes.clone() }, Pass::Forward, 1));
    }
    let wanted = |op: &Operator, pass: Pass| {
        let label = format!("{}, {}", op.label(), pass.name());
        args.only.is_empty() || args.only.iter().any(|words| label.contains(words.as_str()))
    };
    cases.retain(|(op, pass, count)| {
        (*count > 0 || !matches!(op, Operator::Conv { .. })) && wanted(op, *pass)
    });
    if cases.is_empty() {
        let text = format!("--only {}: no operator has that in its name", args.only.join(" --only "));
        return Err(Failure::Usage(text).into());
    }
    Ok(cases)
}

/// Seconds that a training step spends in a row: ours, theirs.
fn weighted(row: &Row) -> (f64, Option<f64>) {
    let count = row.count as f64;
    (count * row.outcome.seconds().median, row.outcome.their_seconds().map(|s| count * s.median))
}

fn totals(rows: &[Row]) -> (f64, Option<f64>) {
    let ours = rows.iter().map(|row| weighted(row).0).sum();
    let used = rows.iter().filter(|row| row.count > 0);
    let theirs = used.map(|row| weighted(row).1).sum::<Option<f64>>().filter(|_| ours > 0.0);
    (ours, theirs)
}

fn title(rows: &[Row], threads: usize, batch: usize) -> String {
    let (ours, theirs) = totals(rows);
    if ours == 0.0 {
        return format!("{}, batch {batch}; of no training step", threads_label(threads));
    }
    let theirs = theirs.map_or(String::new(), |t| format!(", PyTorch {} ({:.2})", seconds(t), ours / t));
    format!(
        "{}, batch {batch}; of a training step these are {}{theirs}",
        threads_label(threads),
        seconds(ours)
    )
}

fn table(rows: &[Row], peak: f64) -> Table {
    let (total, _) = totals(rows);
    let headers =
        ["operator", "pass", "a step", "ours", "PyTorch", "ratio", "rate", "of peak", "in all", "share"];
    let mut table = Table::new(&headers);
    for row in rows {
        let time = row.outcome.seconds().median;
        let (rate, of_peak) = match row.work {
            Work::Flops(n) => {
                (format!("{:.0} GFLOP/s", n / time / 1e9), format!("{:.0} %", 100.0 * n / time / peak))
            }
            Work::Bytes(n) => (format!("{:.1} GB/s", n / time / 1e9), "–".into()),
        };
        let (ours, _) = weighted(row);
        let of_step = |text: String| if row.count > 0 { text } else { "–".into() };
        table.row([
            row.label.clone(),
            row.pass.name().to_owned(),
            of_step(row.count.to_string()),
            seconds(time),
            row.outcome.their_seconds().map_or("–".into(), |s| seconds(s.median)),
            ratio(row.outcome.ratio()),
            rate,
            of_peak,
            of_step(seconds(ours)),
            of_step(format!("{:.1} %", 100.0 * ours / total)),
        ]);
    }
    table
}

fn record(rows: &[Row], threads: usize, peak: f64) -> Value {
    let one = |row: &Row| {
        let time = row.outcome.seconds().median;
        let more = match row.work {
            Work::Flops(n) => {
                json!({ "flops": n, "flops_per_second": n / time, "fraction_of_gemm_peak": n / time / peak })
            }
            Work::Bytes(n) => json!({ "bytes": n, "bytes_per_second": n / time }),
        };
        let mut record = row.outcome.record(more);
        record["operator"] = json!(row.label);
        record["pass"] = json!(row.pass);
        record["per_step"] = json!(row.count);
        record
    };
    let (ours, theirs) = totals(rows);
    json!({
        "threads": threads,
        "step_seconds": { "ours": ours, "pytorch": theirs },
        "operators": rows.iter().map(one).collect::<Vec<_>>(),
    })
}
