//! What every suite does around its own measurements: finds the other side, measures the machine, and writes record and table.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::bench::case::Case;
use crate::bench::duel::{Duel, Outcome, Plan};
use crate::bench::machine;
use crate::bench::peer::{Peer, Settings};
use crate::bench::table::{ratio, seconds};
use crate::cli::Measuring;
use crate::exit::Failure;
use crate::output::{Output, save_record};
use crate::provenance::{command_line, revision};
use crate::table::Table;

/// The Python that has PyTorch, if the command line names none.
const PYTHON: &str = "SDE_BENCH_PYTHON";

/// A suite at work.
pub struct Session<'a> {
    suite: &'static str,
    args: &'a Measuring,
    output: Output,
    /// How to measure.
    pub plan: Plan,
    versions: Value,
    /// Products of large matrices, FLOP/s, by number of threads.
    peaks: Vec<(usize, f64)>,
    device: String,
}

impl<'a> Session<'a> {
    /// Looks for PyTorch, and says what it finds.
    pub fn open(suite: &'static str, args: &'a Measuring, output: Output) -> Result<Self> {
        if let Some(other) = args.autocast.as_deref().filter(|t| *t != "bf16") {
            return Err(Failure::Usage(format!("--autocast {other}: PyTorch casts to bf16 here")).into());
        }
        let device = crate::device::select(&args.device.name, output)?;
        let device = match device.location() {
            candle_core::DeviceLocation::Cpu => "cpu".to_owned(),
            candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            candle_core::DeviceLocation::Metal { .. } => "metal".to_owned(),
        };
        let plan = Plan { repeats: args.repeats, at_least: if args.quick { 0.0 } else { 0.2 }, python: None };
        let mut session = Self { suite, args, output, plan, versions: json!({}), peaks: Vec::new(), device };
        let python = python(args);
        match Peer::python(&python, &session.settings(1)) {
            Ok(peer) => {
                session.versions = json!({ "torch": peer.hello["torch"], "python": peer.hello["python"] });
                session.plan.python = Some(python);
            }
            Err(error) => output.say(format!(
                "no PyTorch ({}: {}); timing this project alone (--python PATH names another)",
                python.display(),
                reason(&error)
            )),
        }
        Ok(session)
    }

    /// Numbers of threads to measure at.
    pub fn threads(&self) -> Vec<usize> {
        if !self.args.threads.is_empty() {
            return self.args.threads.clone();
        }
        // An accelerator's speed does not depend on them.
        let mut threads =
            if self.device == "cpu" { vec![1, machine::cores()] } else { vec![machine::cores()] };
        threads.dedup();
        threads
    }

    /// Whether only the running itself is of interest.
    pub fn quick(&self) -> bool {
        self.args.quick
    }

    fn settings(&self, threads: usize) -> Settings {
        Settings {
            threads,
            device: self.device.clone(),
            autocast: self.args.autocast.is_some(),
            // The layout that tensor cores want.
            channels_last: self.args.channels_last || (self.args.autocast.is_some() && self.device != "cpu"),
        }
    }

    /// Two fresh workers.
    pub fn duel(&self, threads: usize) -> Result<Duel> {
        Duel::start(&self.plan, &self.settings(threads))
    }

    /// FLOP/s of large matrix products on this many threads, measured when first asked for.
    pub fn peak(&mut self, threads: usize) -> Result<f64> {
        if let Some((_, peak)) = self.peaks.iter().find(|(n, _)| *n == threads) {
            return Ok(*peak);
        }
        let size = match (self.quick(), self.device == "cpu") {
            (true, _) => 64,
            (_, true) => 1024,
            _ => 4096,
        };
        let plan = Plan { python: None, ..self.plan.clone() };
        let mut duel = Duel::start(&plan, &self.settings(threads))?;
        let outcome = duel.run(&plan, &Case::Gemm { size })?;
        // At one thread by CPU time, as everything that is compared with it.
        let products = if self.device == "cpu" { threads } else { 1 };
        let peak = 2.0 * (products * size * size * size) as f64 / outcome.seconds().range[0];
        self.peaks.push((threads, peak));
        Ok(peak)
    }

    /// Says how a measurement went.
    pub fn say(&self, label: &str, outcome: &Outcome) {
        let ratio = outcome.ratio().map_or(String::new(), |r| format!(", {} of PyTorch's", ratio(Some(r))));
        let seconds = seconds(outcome.seconds().median);
        let refusal = outcome.refusal.as_ref().map_or(String::new(), |r| format!("; {r}"));
        self.output.say(format!(
            "{label}, {}: {seconds} {}{ratio}{refusal}",
            threads_label(outcome.threads),
            outcome.clock_name()
        ));
    }

    /// Prints the table, or the record, and writes the record where asked.
    pub fn close(self, tables: &[(String, Table)], more: Value) -> Result<()> {
        let command_line = command_line();
        let mut record = json!({
            "command": format!("bench {}", self.suite),
            "command_line": command_line,
            "machine": machine::facts(),
            "device": self.device,
            "versions": self.versions,
            "code_revision": revision(),
            "repeats": self.plan.repeats,
            "quick": self.args.quick,
            "autocast": self.args.autocast,
            "channels_last": self.args.channels_last,
            "tables": tables.iter().map(|(title, table)| table.record(title)).collect::<Vec<_>>(),
            "gemm_peak_flops": self.peaks.iter().map(|(n, p)| (n.to_string(), json!(p))).collect::<Map<_, _>>(),
        });
        if let (Some(record), Value::Object(more)) = (record.as_object_mut(), more) {
            record.extend(more);
        }
        if let Some(path) = &self.args.out {
            save_record(path, &record)?;
        }
        let peaks: Vec<String> = self
            .peaks
            .iter()
            .map(|(n, p)| format!("{:.0} GFLOP/s at {}", p / 1e9, threads_label(*n)))
            .collect();
        let torch =
            record["versions"]["torch"].as_str().map_or("no PyTorch".to_owned(), |v| format!("PyTorch {v}"));
        let ratios = match &self.plan.python {
            Some(_) => format!("; ratios: median and quartiles of {} pairs", self.plan.repeats),
            None => String::new(),
        };
        let foot = format!(
            "{}, {} cores, {torch}, revision {}; matrix products: {}; CPU time at one thread, wall time at more{ratios}",
            record["machine"]["cpu"].as_str().unwrap_or("processor unknown"),
            record["machine"]["cores"],
            revision(),
            peaks.join(", "),
        );
        let body = |render: fn(&Table) -> String, gap: &str| {
            let blocks = tables.iter().map(|(title, table)| format!("{title}\n{gap}{}", render(table)));
            blocks.collect::<Vec<_>>().join("\n\n")
        };
        let summary = if self.args.markdown {
            format!("`{command_line}`: {foot}.\n\n{}", body(Table::markdown, "\n"))
        } else {
            format!("{}\n\n{foot}", body(Table::text, ""))
        };
        self.output.result(summary, &record)
    }
}

/// Why there is no PyTorch, without what the line says already.
fn reason(error: &anyhow::Error) -> String {
    error.root_cause().to_string().replacen("PyTorch: ", "", 1)
}

/// `1 thread`, `2 threads`.
pub fn threads_label(n: usize) -> String {
    format!("{n} thread{}", if n == 1 { "" } else { "s" })
}

fn python(args: &Measuring) -> PathBuf {
    let named = args.python.clone().or_else(|| std::env::var_os(PYTHON).map(PathBuf::from));
    named.unwrap_or_else(|| Path::new("python3").to_owned())
}
