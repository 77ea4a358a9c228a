//! Devices by name, and a choice that falls back and says so.
//!
//! [`DeviceName::Auto`] takes the first CUDA card, else Metal, else the CPU, and tells what it passed over and why. A device that is
//! asked for by name is opened or is an error: a run that was meant for a GPU does not end up on a CPU. Candle's own
//! `Device::cuda_if_available` looks at how the program was built, not at the machine.
//!
//! A CUDA device gets one stream of its own, which all threads share: the stream that Candle takes by default is another one in
//! each thread, and a tensor that is handed from one to another may be read before it is written.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use candle_core::utils::{cuda_is_available, metal_is_available};

use crate::{Error, Result};

/// The name of a device: `auto`, `cpu`, `cuda` or `cuda:N`, `metal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    /// The fastest there is.
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA card of this number.
    Cuda(usize),
    /// The Apple GPU.
    Metal,
}

/// An opened device.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The device.
    pub device: Device,
    /// What was tried before it and could not be used, each with the reason in one line; empty for a device that was named.
    pub passed_over: Vec<String>,
}

impl DeviceName {
    /// Opens the device.
    ///
    /// # Errors
    /// [`Error::Device`] for a named device that this program was built without, or that does not open.
    pub fn open(self) -> Result<Opened> {
        let device = match self {
            Self::Auto => return Ok(automatic()),
            Self::Cpu => Device::Cpu,
            Self::Cuda(number) => {
                self.built(cuda_is_available(), "CUDA")?;
                Device::new_cuda_with_stream(number).map_err(|e| self.refused("CUDA", &e))?
            }
            Self::Metal => {
                self.built(metal_is_available(), "Metal")?;
                Device::new_metal(0).map_err(|e| self.refused("Metal", &e))?
            }
        };
        Ok(Opened { device, passed_over: Vec::new() })
    }

    fn built(self, built: bool, what: &'static str) -> Result<()> {
        if built {
            return Ok(());
        }
        let why = format!("this program was built with no {what}");
        let hint = format!("build it with the feature `{}`", what.to_lowercase());
        Err(Error::Device { name: self.to_string(), why, hint })
    }

    fn refused(self, what: &str, error: &candle_core::Error) -> Error {
        let why = format!("no {what} device can be used ({})", reason(error));
        let hint = match what {
            "CUDA" => "driver, card number and LD_LIBRARY_PATH are what it usually is (docs/cuda.md)".into(),
            _ => "it needs macOS on Apple hardware".into(),
        };
        Error::Device { name: self.to_string(), why, hint }
    }
}

/// The first device that opens.
fn automatic() -> Opened {
    let built = [(DeviceName::Cuda(0), cuda_is_available()), (DeviceName::Metal, metal_is_available())];
    let mut passed_over = Vec::new();
    for (name, _) in built.into_iter().filter(|(_, built)| *built) {
        match name.open() {
            Ok(opened) => return Opened { device: opened.device, passed_over },
            Err(Error::Device { name, why, .. }) => passed_over.push(format!("{name}: {why}")),
            Err(other) => passed_over.push(format!("{name}: {other}")),
        }
    }
    Opened { device: Device::Cpu, passed_over }
}

/// What a backend says: the name of CUDA's error code if there is one, else the first line.
fn reason(error: &candle_core::Error) -> String {
    let text = error.to_string();
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let codes = ["CUDA_ERROR_", "CUBLAS_STATUS_", "CURAND_STATUS_"];
    let code = words.find(|word| codes.iter().any(|code| word.starts_with(code)));
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    code.or(first).unwrap_or("no reason given").to_owned()
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let number = |text: &str| text.parse().ok().map(Self::Cuda);
        let found = match name {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            "metal" => Some(Self::Metal),
            _ => name.strip_prefix("cuda:").and_then(number),
        };
        found.ok_or_else(|| Error::Mismatch {
            what: "device",
            expected: "auto, cpu, cuda:N or metal".into(),
            found: format!("`{name}`"),
        })
    }
}
