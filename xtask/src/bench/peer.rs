//! A worker as the orchestrator sees it: a process that answers one JSON line to each.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::case::Case;
use super::clock::Elapsed;

/// The PyTorch side.
const PEER: &str = include_str!("../../bench/peer.py");

/// How workers work.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Threads of the operators.
    pub threads: usize,
    /// The device, as on the command line.
    pub device: String,
    /// PyTorch casts to bf16 by itself.
    pub autocast: bool,
    /// PyTorch keeps images channels last.
    pub channels_last: bool,
}

/// A running worker.
pub struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    name: &'static str,
    /// What it said first: its versions, and the memory it has taken before any work.
    pub hello: Value,
}

impl Peer {
    /// This program.
    pub fn ours(settings: &Settings) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program to start it again")?;
        let mut command = Command::new(program);
        command.args(["bench", "worker", "--device", &settings.device]);
        Self::start(command, settings, "this project")
    }

    /// A Python with PyTorch.
    pub fn python(python: &Path, settings: &Settings) -> Result<Self> {
        let mut command = Command::new(python);
        // What PyTorch calls the same device.
        let device = if settings.device == "metal" { "mps" } else { &settings.device };
        let arguments = json!({
            "threads": settings.threads,
            "device": device,
            "autocast": settings.autocast,
            "channels_last": settings.channels_last,
        });
        command.args(["-c", PEER, &arguments.to_string()]);
        Self::start(command, settings, "PyTorch")
    }

    fn start(mut command: Command, settings: &Settings, name: &'static str) -> Result<Self> {
        let threads = settings.threads.to_string();
        // Threads that spin while they wait would fight with whatever else runs.
        command
            .env("OMP_WAIT_POLICY", "PASSIVE")
            .env("CANDLE_NUM_THREADS", "1")
            .envs(["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"].map(|key| (key, &threads)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let (Some(requests), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{name}: no way to talk to it");
        };
        let answers = BufReader::new(output).lines();
        let mut peer = Self { child, requests, answers, name, hello: Value::Null };
        peer.hello = peer.answer()?;
        Ok(peer)
    }

    /// Makes ready for a case; the number of parameters, where it has a network.
    pub fn prepare(&mut self, case: &Case) -> Result<Option<u64>> {
        let answer = self.ask(&json!({ "prepare": case }))?;
        Ok(answer["parameters"].as_u64())
    }

    /// Does the case a number of times; what once took.
    pub fn measure(&mut self, iterations: usize) -> Result<Elapsed> {
        let answer = self.ask(&json!({ "measure": iterations }))?;
        let Elapsed { wall, cpu } = serde_json::from_value(answer)?;
        let each = iterations.max(1) as f64;
        Ok(Elapsed { wall: wall / each, cpu: cpu / each })
    }

    /// The most memory it has taken so far, in bytes.
    pub fn memory(&mut self) -> Result<Option<u64>> {
        Ok(self.ask(&json!("memory"))?["memory"].as_u64())
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        let sent = writeln!(self.requests, "{request}").and_then(|()| self.requests.flush());
        sent.with_context(|| format!("{}: the worker has gone", self.name))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let line = self
            .answers
            .next()
            .ok_or_else(|| anyhow!("{}: the worker ended without an answer", self.name))??;
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("{}: answered {line}", self.name))?;
        match answer["error"].as_str() {
            Some(error) => Err(anyhow!("{}: {error}", self.name)),
            None => Ok(answer),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // What is left of it is of no use, whether it ends by itself or not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
