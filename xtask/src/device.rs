//! Devices by name: `auto`, `cpu`, `cuda:N`, `metal`.

use anyhow::Result;
use candle_core::Device;
use sde_core::DeviceName;

use crate::build::sampler::unknown;
use crate::exit::Failure;
use crate::output::Output;
use crate::provenance::device_name;

/// The device, with a word on what `auto` passed over.
pub fn select(name: &str, output: Output) -> Result<Device> {
    let Ok(choice) = name.parse::<DeviceName>() else {
        return Err(unknown("device", name, &["auto", "cpu", "cuda:N", "metal"]).into());
    };
    let opened = choice.open().map_err(|error| Failure::Config(format!("{error}; or take --device cpu")))?;
    for line in &opened.passed_over {
        output.say(format!("{line}; going on with {}", device_name(&opened.device)));
    }
    Ok(opened.device)
}
