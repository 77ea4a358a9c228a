//! What a number was measured on.

use serde_json::{Value, json};

/// Instruction sets that decide how fast the operators are.
const FEATURES: [&str; 8] =
    ["avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx512_vnni", "amx_tile"];

/// Processor, cores, instruction sets, system.
pub fn facts() -> Value {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|k| k.trim() == key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let flags = field("flags").unwrap_or_default();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    json!({
        "cpu": field("model name"),
        "cores": cores(),
        "features": FEATURES.iter().filter(|f| flags.contains(f)).collect::<Vec<_>>(),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "load": std::fs::read_to_string("/proc/loadavg").ok().and_then(|l| l.split(' ').next()?.parse::<f64>().ok()),
    })
}

/// Processors that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
