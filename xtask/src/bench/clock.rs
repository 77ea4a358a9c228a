//! Wall time, CPU time and peak memory of this process.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What some work took, in seconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Elapsed {
    /// On the wall.
    pub wall: f64,
    /// Of all threads of the process together; wall time where the system does not tell.
    pub cpu: f64,
}

/// A running clock.
pub struct Clock {
    wall: Instant,
    cpu: Option<f64>,
}

impl Clock {
    /// Starts.
    pub fn start() -> Self {
        Self { cpu: process_seconds(), wall: Instant::now() }
    }

    /// Since the start.
    pub fn elapsed(&self) -> Elapsed {
        let wall = self.wall.elapsed().as_secs_f64();
        let cpu = process_seconds().zip(self.cpu).map_or(wall, |(now, then)| now - then);
        Elapsed { wall, cpu }
    }
}

#[cfg(unix)]
fn process_seconds() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64)
}

#[cfg(not(unix))]
fn process_seconds() -> Option<f64> {
    None
}

/// The largest resident size of this process so far, in bytes, where the system tells.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(1024 * line.split_whitespace().nth(1)?.parse::<u64>().ok()?)
}
