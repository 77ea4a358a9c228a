//! An evaluation on its way to a csv file: batch after batch is kept, so that a killed one goes on; parts of the data are evaluated apart, and
//! put together they are the whole, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result};
use sde_core::noise::BatchNoise;
use sde_data::Dataset;
use sde_eval::{Evaluation, Protocol, Solve};
use sde_train::hash::sha256;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::Shard;
use crate::exit::Failure;
use crate::journal::{Journal, fingerprint};
use crate::output::{Output, save_record, write_whole};
use crate::signals;

/// Examples of the first batch where the time is to be estimated from it.
const FIRST: usize = 4;
/// Examples hashed together.
const HASHED: usize = 1000;

const OTHER: &str =
    "an unfinished evaluation of something else is there; finish it with its own options, or remove it";

/// What is kept of the rows that are safe.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Done {
    /// The number of examples.
    examples: usize,
}

/// What costs so much that the user is told beforehand.
pub struct Cost {
    /// Vector–Jacobian products of a network call.
    pub products: usize,
    /// Network calls of a solve, where they are known.
    pub calls: Option<usize>,
}

/// An evaluation of the first examples of a data set, and where it is kept.
pub struct Work<'a> {
    /// The evaluation.
    pub evaluation: Evaluation<'a>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The number of examples.
    pub n: usize,
    /// The folder of records.
    pub folder: PathBuf,
    /// The name of the files, without their ending.
    pub name: String,
    /// What it is an evaluation of.
    pub identity: Value,
    /// Told beforehand.
    pub cost: Option<Cost>,
}

/// The hash of the first `n` examples, at the noise of a protocol's first step.
pub fn examples_hash(data: &dyn Dataset, n: usize, protocol: &Protocol) -> Result<String> {
    let indices: Vec<usize> = (0..n).collect();
    let mut hashes = String::new();
    for chunk in indices.chunks(HASHED) {
        let noise = BatchNoise::new(protocol.noise, 0, chunk.iter().map(|&i| i as u32));
        let x = data.batch(chunk, &noise)?.x.to_dtype(candle_core::DType::F64)?;
        let bytes: Vec<u8> =
            x.flatten_all()?.to_vec1::<f64>()?.iter().flat_map(|v| v.to_le_bytes()).collect();
        hashes += &sha256(&bytes);
    }
    Ok(sha256(hashes.as_bytes()))
}

impl Work<'_> {
    fn csv(&self, shard: Option<Shard>) -> PathBuf {
        let part = shard.map_or_else(String::new, |s| format!(".shard-{}-of-{}", s.part, s.of));
        self.folder.join(format!("{}{part}.csv", self.name))
    }

    /// The first example of a part, and the first that is no longer in it.
    fn range(&self, shard: Shard) -> (usize, usize) {
        let at = |part: usize| (part as u128 * self.n as u128 / shard.of as u128) as usize;
        (at(shard.part - 1), at(shard.part))
    }

    /// Solves what is missing of all examples; the file keeps its provisional name until [`Whole::finish`].
    pub fn whole(&self, output: Output) -> Result<Whole> {
        let csv = self.csv(None);
        let journal = self.solve(&csv, (0, self.n), output)?;
        let solves = rows(&csv, &journal.bytes()?)?;
        Ok(Whole { solves, kept: Kept::Journal(journal) })
    }

    /// Solves what is missing of a part; nothing if it is done.
    pub fn part(&self, shard: Shard, output: Output) -> Result<()> {
        let csv = self.csv(Some(shard));
        if self.is_done(shard)? {
            output.say(format!("{} is there already", csv.display()));
            return Ok(());
        }
        let journal = self.solve(&csv, self.range(shard), output)?;
        let note = json!({
            "identity": fingerprint(&self.identity),
            "shard": format!("{}/{}", shard.part, shard.of),
            "examples": journal.facts().examples,
        });
        save_record(&csv.with_extension("part"), &note)?;
        journal.finish()
    }

    /// Whether a part of this evaluation is done.
    fn is_done(&self, shard: Shard) -> Result<bool> {
        let csv = self.csv(Some(shard));
        let note = csv.with_extension("part");
        if !(csv.is_file() && note.is_file()) {
            return Ok(false);
        }
        let text = fs::read(&note).with_context(|| format!("cannot read {}", note.display()))?;
        let note: Value =
            serde_json::from_slice(&text).map_err(|e| Failure::Data(format!("{}: {e}", note.display())))?;
        if note["identity"] == fingerprint(&self.identity) {
            return Ok(true);
        }
        let text = format!(
            "{}: a part of another evaluation is there; put that together first (--merge with its own options), or remove it",
            csv.display()
        );
        Err(Failure::Config(text).into())
    }

    /// The parts of `of` that are not done.
    pub fn missing(&self, of: usize) -> Result<Vec<usize>> {
        let done = |part: usize| self.is_done(Shard { part, of });
        (1..=of).filter_map(|part| done(part).map(|done| (!done).then_some(part)).transpose()).collect()
    }

    /// The number of parts that this evaluation was cut into, of which all have to be done.
    pub fn parts(&self) -> Result<usize> {
        let prefix = format!("{}.shard-", self.name);
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let of = |name: String| {
            let (_, of) = name.strip_prefix(&prefix)?.strip_suffix(".part")?.split_once("-of-")?;
            of.parse::<usize>().ok()
        };
        let mut counts: Vec<usize> = names.filter_map(of).collect();
        counts.sort_unstable();
        counts.dedup();
        let mut told = format!("{}: no part of {} is there", self.folder.display(), self.name);
        for of in counts {
            let missing = self.missing(of)?;
            if missing.is_empty() {
                return Ok(of);
            }
            told = format!(
                "{}: of {of} parts of {} {} are missing",
                self.folder.display(),
                self.name,
                list(&missing)
            );
        }
        Err(Failure::Usage(format!("--merge: {told}; evaluate them with --shard I/N")).into())
    }

    /// The whole, put together from its parts.
    pub fn merged(&self, of: usize) -> Result<Whole> {
        let (mut solves, mut files) = (Vec::new(), Vec::new());
        for part in 1..=of {
            let csv = self.csv(Some(Shard { part, of }));
            let bytes = fs::read(&csv).with_context(|| format!("cannot read {}", csv.display()))?;
            solves.extend(rows(&csv, &bytes)?);
            files.push(csv);
        }
        let repeats = self.protocol.repeats;
        let in_order =
            |(i, solve): (usize, &Solve)| (solve.index, solve.repeat) == (i / repeats, i % repeats);
        if solves.len() != self.n * repeats || !solves.iter().enumerate().all(in_order) {
            let text = format!(
                "{}: parts that do not make up {} examples; evaluate them anew",
                self.folder.display(),
                self.n
            );
            return Err(Failure::Data(text).into());
        }
        Ok(Whole { solves, kept: Kept::Parts { csv: self.csv(None), files } })
    }

    /// Solves the examples of a range that are not there yet, batch after batch.
    fn solve(&self, csv: &Path, (from, to): (usize, usize), output: Output) -> Result<Journal<Done>> {
        let mut journal = Journal::<Done>::open(csv, &self.identity, OTHER)?;
        if journal.is_empty() {
            journal.append(Solve::CSV_HEADER.as_bytes(), |_| ())?;
        }
        let there = journal.facts().examples;
        if there > 0 {
            output.say(format!("going on after {there} of {} examples", to - from));
        }
        let Protocol { repeats, batch, .. } = self.protocol;
        let stop = signals::stop_flag()?;
        let bar = output.bar(((to - from) * repeats) as u64, "solving");
        let mut left: &[usize] = &(from + there..to).collect::<Vec<_>>();
        let mut clock = self.cost.as_ref().filter(|_| left.len() > FIRST).map(|cost| {
            bar.suspend(|| output.say(cost.beforehand(left.len() * repeats)));
            Instant::now()
        });
        while !left.is_empty() {
            // What an example costs is told from the first few.
            let size = if clock.is_some() { FIRST.min(batch) } else { batch };
            let (chunk, rest) = left.split_at(size.min(left.len()));
            let before = journal.facts().examples * repeats;
            let solves =
                self.evaluation.solve(chunk, &mut |done| bar.set_position((before + done) as u64))?;
            let rows: String = solves.iter().map(Solve::to_csv).collect();
            journal.append(rows.as_bytes(), |done| done.examples += chunk.len())?;
            left = rest;
            if let Some(begun) = clock.take() {
                let seconds = begun.elapsed().as_secs_f64() / chunk.len() as f64 * left.len() as f64;
                bar.suspend(|| {
                    output.say(format!("about {seconds:.0} s more, by the first {} examples", chunk.len()))
                });
            }
            if stop.load(Ordering::Relaxed) && !left.is_empty() {
                bar.finish_and_clear();
                let (done, all) = (journal.facts().examples, to - from);
                let text = format!("{done} of {all} examples are safe; the same command goes on");
                return Err(Failure::Stopped(text).into());
            }
        }
        bar.finish_and_clear();
        Ok(journal)
    }
}

impl Cost {
    fn beforehand(&self, solves: usize) -> String {
        let products = self.products;
        match self.calls {
            Some(calls) => format!(
                "exact divergence: {calls} network calls × {products} vector–Jacobian products × {solves} solves = {}",
                calls * products * solves
            ),
            None => format!(
                "exact divergence: {products} vector–Jacobian products for every network call of {solves} solves; a random one (--divergence rademacher) has --probes of them"
            ),
        }
    }
}

/// The rows of a csv file.
fn rows(csv: &Path, bytes: &[u8]) -> Result<Vec<Solve>> {
    let text = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_prefix(Solve::CSV_HEADER));
    let text = text.ok_or_else(|| Failure::Data(format!("{}: not a file of solves", csv.display())))?;
    let row = |line: &str| {
        Solve::from_csv(line).map_err(|e| Failure::Data(format!("{}: {e}", csv.display())).into())
    };
    text.lines().map(row).collect()
}

/// Numbers in words.
pub fn list(numbers: &[usize]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// All solves, and what still has to become their file.
pub struct Whole {
    /// Example by example.
    pub solves: Vec<Solve>,
    kept: Kept,
}

enum Kept {
    Journal(Journal<Done>),
    Parts { csv: PathBuf, files: Vec<PathBuf> },
}

impl Whole {
    /// Gives the file of all solves its name, once the record is written.
    pub fn finish(self) -> Result<()> {
        match self.kept {
            Kept::Journal(journal) => journal.finish(),
            Kept::Parts { csv, files } => {
                let rows: String = self.solves.iter().map(Solve::to_csv).collect();
                write_whole(&csv, format!("{}{rows}", Solve::CSV_HEADER).as_bytes())?;
                for file in files {
                    // Another part that was done at the same moment may have put the same whole together.
                    for file in [file.with_extension("part"), file] {
                        match fs::remove_file(&file) {
                            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                            _ => {}
                        }
                    }
                }
                Ok(())
            }
        }
    }
}
