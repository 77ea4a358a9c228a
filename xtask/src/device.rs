//! Devices by name: `auto`, `cpu`, `cuda:N`, `metal`.

use anyhow::Result;
use candle_core::Device;

use crate::build::sampler::unknown;
use crate::exit::Failure;
use crate::output::Output;

/// The device, with a word on what `auto` chose.
pub fn select(name: &str, output: Output) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "metal" => gpu(name, candle_core::utils::metal_is_available(), || Device::new_metal(0)),
        "auto" => Ok(automatic(output)),
        _ => match name.strip_prefix("cuda").map(|rest| rest.trim_start_matches(':')) {
            Some(rest) if rest.is_empty() || rest.parse::<usize>().is_ok() => {
                let ordinal = rest.parse().unwrap_or(0);
                gpu(name, candle_core::utils::cuda_is_available(), || Device::new_cuda(ordinal))
            }
            _ => Err(unknown("device", name, &["auto", "cpu", "cuda:N", "metal"]).into()),
        },
    }
}

fn gpu(name: &str, built: bool, make: impl Fn() -> candle_core::Result<Device>) -> Result<Device> {
    if !built {
        let feature = name.split(':').next().unwrap_or(name);
        let text = format!(
            "device {name}: this build has no {feature}; build with --features {feature}, or take --device cpu"
        );
        return Err(Failure::Config(text).into());
    }
    make().map_err(|e| Failure::Config(format!("device {name}: {e}; take --device cpu")).into())
}

fn automatic(output: Output) -> Device {
    let attempt = |name: &str, built: bool, device: fn(usize) -> candle_core::Result<Device>| {
        built
            .then(|| device(0))?
            .map_err(|e| output.say(format!("{name} cannot be used ({e}); going on without")))
            .ok()
    };
    attempt("cuda", candle_core::utils::cuda_is_available(), Device::new_cuda)
        .or_else(|| attempt("metal", candle_core::utils::metal_is_available(), Device::new_metal))
        .unwrap_or(Device::Cpu)
}
