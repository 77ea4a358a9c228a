//! This project's side of a comparison: the worker's loop, the same words as in `bench/peer.py`.

use std::io::{BufRead, Write};

use anyhow::{Result, anyhow};
use candle_core::Device;
use serde_json::{Value, json};

use super::clock::{Elapsed, peak_memory};
use super::work::{Work, prepare};
use crate::exit::one_line;

/// Serves requests until there are no more.
pub fn serve(device: &Device) -> Result<()> {
    let mut work: Option<Prepared> = None;
    say(&json!({ "memory": peak_memory() }))?;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = respond(&request, &mut work, device);
        say(&answer.unwrap_or_else(|error| json!({ "error": one_line(&error) })))?;
    }
    Ok(())
}

type Prepared = Box<dyn Work>;

fn respond(request: &Value, work: &mut Option<Prepared>, device: &Device) -> Result<Value> {
    if request == "memory" {
        // Of an accelerator's memory Candle does not tell.
        return Ok(json!({ "memory": peak_memory().filter(|_| device.is_cpu()) }));
    }
    if let Some(case) = request.get("prepare") {
        // What came before gives its memory back first.
        *work = None;
        let prepared = prepare(serde_json::from_value(case.clone())?, device)?;
        let answer = json!({ "parameters": prepared.parameters() });
        *work = Some(prepared);
        return Ok(answer);
    }
    let iterations = request["measure"].as_u64().ok_or_else(|| anyhow!("no such request: {request}"))?;
    let work = work.as_mut().ok_or_else(|| anyhow!("nothing is prepared"))?;
    let Elapsed { wall, cpu } = work.measure(iterations as usize, device)?;
    Ok(json!({ "wall": wall, "cpu": cpu }))
}

fn say(answer: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}
