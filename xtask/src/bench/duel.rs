//! Two workers in turns: ours, theirs, ours, theirs, … so that whatever slows the machine slows both.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::case::Case;
use super::clock::Elapsed;
use super::peer::{Peer, Settings};
use super::statistics::Spread;

/// How to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Pairs of measurements.
    pub repeats: usize,
    /// A measurement repeats its work until it lasts about this long, in seconds.
    pub at_least: f64,
    /// The Python, if it has PyTorch.
    pub python: Option<PathBuf>,
}

/// Both workers.
pub struct Duel {
    ours: Peer,
    theirs: Option<Peer>,
    threads: usize,
    gpu: bool,
}

/// What a case took on both sides.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Threads.
    pub threads: usize,
    /// Whether CPU time was compared, or else wall time.
    pub by_cpu: bool,
    ours: Vec<Elapsed>,
    theirs: Vec<Elapsed>,
    /// Trainable scalars, where there is a network.
    pub parameters: Option<u64>,
    /// The most memory so far, in bytes: ours, theirs.
    pub memory: [Option<u64>; 2],
    /// Why there is nothing of theirs, if they were asked.
    pub refusal: Option<String>,
}

impl Duel {
    /// Starts the workers.
    pub fn start(plan: &Plan, settings: &Settings) -> Result<Self> {
        let theirs = plan.python.as_deref().map(|python| Peer::python(python, settings)).transpose()?;
        let gpu = settings.device.starts_with("cuda") || settings.device == "metal";
        Ok(Self { ours: Peer::ours(settings)?, theirs, threads: settings.threads, gpu })
    }

    /// Measures a case; both warm up first.
    pub fn run(&mut self, plan: &Plan, case: &Case) -> Result<Outcome> {
        self.run_pair(plan, case, case)
    }

    /// Measures ours against their form of it.
    pub fn run_pair(&mut self, plan: &Plan, case: &Case, their_case: &Case) -> Result<Outcome> {
        let parameters = self.ours.prepare(case)?;
        let mut refusal = None;
        let mut theirs = self.theirs.as_mut();
        if let Some(peer) = &mut theirs {
            match peer.prepare(their_case) {
                Ok(found) if found != parameters => bail!(
                    "the networks differ: {parameters:?} parameters here, {found:?} in PyTorch, of {}",
                    serde_json::to_string(case)?
                ),
                Ok(_) => {}
                Err(error) => {
                    refusal = Some(error.to_string());
                    theirs = None;
                }
            }
        }
        let our_iterations = iterations(&mut self.ours, plan.at_least)?;
        let their_iterations = theirs.as_mut().map(|peer| iterations(peer, plan.at_least)).transpose()?;
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for _ in 0..plan.repeats {
            ours.push(self.ours.measure(our_iterations)?);
            if let (Some(peer), Some(iterations)) = (&mut theirs, their_iterations) {
                others.push(peer.measure(iterations)?);
            }
        }
        let their_memory = theirs.map(|peer| peer.memory()).transpose()?.flatten();
        Ok(Outcome {
            threads: self.threads,
            by_cpu: self.threads == 1 && !self.gpu,
            ours,
            theirs: others,
            parameters,
            memory: [self.ours.memory()?, their_memory],
            refusal,
        })
    }
}

/// Warms up, and finds how many iterations last long enough.
fn iterations(peer: &mut Peer, at_least: f64) -> Result<usize> {
    peer.measure(1)?;
    let once = peer.measure(1)?.wall;
    if once >= at_least {
        return Ok(1);
    }
    // Short work runs faster when warm: a second guess from several.
    let few = (0.1 * at_least / once.max(1e-7)).ceil().clamp(1.0, 1e6) as usize;
    let once = peer.measure(few)?.wall;
    Ok((at_least / once.max(1e-7)).ceil().clamp(1.0, 1e6) as usize)
}

impl Outcome {
    /// Seconds of ours by the clock that is compared.
    pub fn seconds(&self) -> Spread {
        Spread::of(self.ours.iter().map(|e| self.clock(e)))
    }

    /// Seconds of theirs.
    pub fn their_seconds(&self) -> Option<Spread> {
        (!self.theirs.is_empty()).then(|| Spread::of(self.theirs.iter().map(|e| self.clock(e))))
    }

    /// Seconds on the wall: ours.
    pub fn wall(&self) -> Spread {
        Spread::of(self.ours.iter().map(|e| e.wall))
    }

    /// Ours over theirs, of neighbouring measurements.
    pub fn ratio(&self) -> Option<Spread> {
        let pairs = self.ours.iter().zip(&self.theirs);
        (!self.theirs.is_empty()).then(|| Spread::of(pairs.map(|(a, b)| self.clock(a) / self.clock(b))))
    }

    fn clock(&self, elapsed: &Elapsed) -> f64 {
        if self.by_cpu { elapsed.cpu } else { elapsed.wall }
    }

    /// The name of the clock that is compared.
    pub fn clock_name(&self) -> &'static str {
        if self.by_cpu { "cpu" } else { "wall" }
    }

    /// As in a record, with what `more` adds.
    pub fn record(&self, more: Value) -> Value {
        let side = |elapsed: &[Elapsed], memory: Option<u64>| {
            (!elapsed.is_empty()).then(|| {
                json!({
                    "wall_seconds": Spread::of(elapsed.iter().map(|e| e.wall)).record(),
                    "cpu_seconds": Spread::of(elapsed.iter().map(|e| e.cpu)).record(),
                    "peak_memory_bytes": memory,
                })
            })
        };
        let mut record = json!({
            "threads": self.threads,
            "clock": self.clock_name(),
            "ours": side(&self.ours, self.memory[0]),
            "pytorch": side(&self.theirs, self.memory[1]),
            "ratio_to_pytorch": self.ratio().map(|r| r.record()),
            "parameters": self.parameters,
        });
        if let (Some(record), Value::Object(more)) = (record.as_object_mut(), more) {
            record.extend(more);
        }
        record
    }
}
