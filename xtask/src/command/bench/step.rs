//! `bench step`: what a sampler's step costs besides the network.
//!
//! First without a network: a step of `tab3` on images, against the time in which the same machine streams the same bytes (each operand read
//! once, the state written once) in a plain loop. Then the share of a sampling run of a U-Net that is not the network.

use std::cell::Cell;
use std::hint::black_box;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use sde_core::noise::{BatchNoise, Noise};
use sde_core::{Field, FieldFn, LinearSde, ModelField, Prediction, TimeGrid};
use sde_solvers::{Multistep, Tab, prior_sample};
use serde_json::json;

use crate::bench::clock::Clock;
use crate::bench::statistics::Spread;
use crate::bench::table::seconds;
use crate::bench::work::network::frozen;
use crate::cli::BenchStep;
use crate::config::Source;
use crate::output::{Output, save_record};
use crate::provenance::revision;
use crate::table::Table;

/// States and predictions that a step of tab3 reads, and the one state it writes.
const OPERANDS: usize = 5;
/// States that the network sees.
const NETWORK_BATCH: usize = 8;
/// Steps between two readings of the clock.
const STEPS: usize = 12;

/// Runs the suite.
pub fn run(args: &BenchStep, output: Output) -> Result<()> {
    let mut source = Source::find(&args.preset)?;
    args.sets.iter().try_for_each(|set| source.set(set))?;
    let preset = source.score()?;
    let sde = preset.process.build()?;
    let (shape, _) = preset.data.facts(output)?;
    let grid = TimeGrid::power(sde.span().end, sde.span().sampling, STEPS, 2.0)?;
    let table = Tab { degree: 3 }.table(sde.as_ref(), &grid)?;
    let (x, noise) = start(sde.as_ref(), args.batch, &shape)?;
    // A network would give a new array each time; these were made before.
    let given: Vec<Tensor> = (0..OPERANDS).map(|k| x.affine(0.5, k as f64)).collect::<Result<_, _>>()?;
    let turn = Cell::new(0);
    let field = FieldFn::new(Prediction::Noise, |_: &Tensor, _: &[f64]| {
        turn.set((turn.get() + 1) % OPERANDS);
        Ok(given[turn.get()].clone())
    });
    // The first steps have a shorter history.
    let arrays: usize = table.updates.iter().map(|update| update.terms.len() + 2).sum();
    let bytes = arrays * 8 * x.elem_count() / STEPS;
    let fill = arrays as f64 / ((OPERANDS + 1) * STEPS) as f64;
    let stream = Stream::new(x.elem_count());
    let (mut steps, mut streams, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for repeat in 0..=args.repeats {
        let clock = Clock::start();
        table.sample(sde.as_ref(), &field, &x, &noise)?;
        let step = clock.elapsed().wall / STEPS as f64;
        let clock = Clock::start();
        (0..STEPS).for_each(|_| stream.pass());
        let floor = fill * clock.elapsed().wall / STEPS as f64;
        // The first round warms up.
        if repeat > 0 {
            steps.push(step);
            streams.push(floor);
            ratios.push(step / floor);
        }
    }
    let (step, floor, ratio) = (Spread::of(steps), Spread::of(streams), Spread::of(ratios));

    output.say(format!("{STEPS} steps of {} on {NETWORK_BATCH} states", preset.name));
    let (x, noise) = start(sde.as_ref(), NETWORK_BATCH, &shape)?;
    let (network, _) = frozen(&preset.net, &shape, &Device::Cpu)?;
    let field = ModelField::new(network, DType::F32, &Device::Cpu);
    let clock = Clock::start();
    let timed = Timed { field: &field, spent: Cell::new(0.0) };
    table.sample(sde.as_ref(), &timed, &x, &noise)?;
    let total = clock.elapsed().wall;
    let share = 1.0 - timed.spent.get() / total;

    let mut rows = Table::new(&["what", "time", "ratio"]);
    rows.row([
        format!("tab3 step, {:?}, no network", with_batch(args.batch, &shape)),
        seconds(step.median),
        format!("{:.2}", ratio.median),
    ]);
    rows.row([format!("streaming the same {:.1} MB", bytes as f64 / 1e6), seconds(floor.median), "1".into()]);
    rows.row([
        format!("outside the network of {}, batch {NETWORK_BATCH}", preset.name),
        seconds(share * total / STEPS as f64),
        format!("{:.2} %", 100.0 * share),
    ]);
    let record = json!({
        "command": "bench step",
        "preset": preset.name,
        "batch": args.batch,
        "shape": shape,
        "bytes": bytes,
        "step_seconds": step.record(),
        "stream_seconds": floor.record(),
        "ratio_to_stream": ratio.record(),
        "network_batch": NETWORK_BATCH,
        "share_outside_the_network": share,
        "tables": [rows.record("")],
        "code_revision": revision(),
    });
    if let Some(path) = &args.out {
        save_record(path, &record)?;
    }
    output.result(if args.markdown { rows.markdown() } else { rows.text() }, &record)
}

fn with_batch(batch: usize, shape: &[usize]) -> Vec<usize> {
    std::iter::once(batch).chain(shape.iter().copied()).collect()
}

fn start(sde: &dyn LinearSde, batch: usize, shape: &[usize]) -> Result<(Tensor, BatchNoise)> {
    let noise = BatchNoise::new(Noise::new(0), 0, 0..batch as u32);
    Ok((prior_sample(sde, &noise, shape, DType::F64, &Device::Cpu)?, noise))
}

/// As many arrays as a step reads, streamed into one.
struct Stream {
    read: Vec<Vec<f64>>,
}

impl Stream {
    fn new(n: usize) -> Self {
        Self { read: (0..OPERANDS).map(|k| (0..n).map(|i| (i + k) as f64).collect()).collect() }
    }

    /// Reads every array once and writes their sum once, on all threads.
    fn pass(&self) {
        const CHUNK: usize = 4096;
        let n = self.read[0].len();
        let mut sums: Vec<[f64; 8]> = Vec::with_capacity(n / 8);
        let group = |i: usize| {
            let mut sum = [0.0; 8];
            for array in &self.read {
                sum.iter_mut().zip(&array[8 * i..8 * i + 8]).for_each(|(s, x)| *s += x);
            }
            sum
        };
        (0..n / 8).into_par_iter().with_min_len(CHUNK / 8).map(group).collect_into_vec(&mut sums);
        black_box(&sums);
    }
}

/// A field that counts the time spent in it.
struct Timed<'a, F> {
    field: &'a F,
    spent: Cell<f64>,
}

impl<F: Field> Field for Timed<'_, F> {
    fn prediction(&self) -> Prediction {
        self.field.prediction()
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> sde_core::Result<Tensor> {
        let clock = Clock::start();
        let value = self.field.eval(x, t);
        self.spent.set(self.spent.get() + clock.elapsed().wall);
        value
    }
}
