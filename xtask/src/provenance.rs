//! What a number was made with: code revision, versions, device.

use std::process::Command;

use candle_core::Device;
use serde_json::{Value, json};

/// The revision of the code, with `+` if it has uncommitted changes; `unknown` outside a repository.
pub fn revision() -> String {
    let here = env!("CARGO_MANIFEST_DIR");
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(here).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(revision)
            if git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty()) =>
        {
            revision + "+"
        }
        Some(revision) => revision,
        None => "unknown".to_owned(),
    }
}

/// The command line, without where a Python or a file lies on this machine.
pub fn command_line() -> String {
    let mut words = vec!["cargo xtask".to_owned()];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // A whole that was put together from parts is the whole.
            "--python" | "--out" | "--shard" => drop(arguments.next()),
            "--markdown" | "--json" | "--merge" => {}
            word if ["--python=", "--out=", "--shard="].iter().any(|option| word.starts_with(option)) => {}
            word => words.push(plain(word)),
        }
    }
    words.join(" ")
}

/// A word of a command line, of a path from the root only its name.
fn plain(word: &str) -> String {
    let (option, value) = match word.split_once('=') {
        Some((option, value)) => (format!("{option}="), value),
        None => (String::new(), word),
    };
    let name = if value.starts_with('/') {
        value.trim_end_matches('/').rsplit('/').next().unwrap_or(value)
    } else {
        value
    };
    if name.contains(' ') { format!("\"{option}{name}\"") } else { option + name }
}

/// The device's name.
pub fn device_name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => {
            format!("cpu ({} threads)", candle_core::utils::get_num_threads())
        }
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// The provenance of a run.
pub fn provenance(device: &Device) -> Value {
    json!({
        "code_revision": revision(),
        "version": env!("CARGO_PKG_VERSION"),
        "candle": CANDLE,
        "device": device_name(device),
    })
}

/// The version of Candle this was built with, as the workspace asks for it.
const CANDLE: &str = "0.11.1";
