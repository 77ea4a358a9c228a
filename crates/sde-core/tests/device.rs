//! Devices by name: what opens, what is refused, and what `auto` says when it falls back.
//!
//! The same tests run in a build with the feature `cuda`, on machines with and without a GPU.
#![allow(clippy::print_stdout, reason = "a test that is skipped says why")]

use candle_core::Device;
use sde_core::{DeviceName, Error, Result};

#[test]
fn names_are_read_and_written() -> Result<()> {
    for (text, name) in [
        ("auto", DeviceName::Auto),
        ("cpu", DeviceName::Cpu),
        ("cuda:0", DeviceName::Cuda(0)),
        ("cuda:12", DeviceName::Cuda(12)),
        ("metal", DeviceName::Metal),
    ] {
        assert_eq!(text.parse::<DeviceName>()?, name);
        assert_eq!(name.to_string(), text);
    }
    assert_eq!("cuda".parse::<DeviceName>()?, DeviceName::Cuda(0));
    for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda0", "CPU"] {
        let error = wrong.parse::<DeviceName>().expect_err(wrong).to_string();
        assert!(error.contains("auto, cpu, cuda:N or metal"), "{error}");
    }
    Ok(())
}

#[test]
fn the_processor_is_always_there() -> Result<()> {
    let opened = DeviceName::Cpu.open()?;
    assert!(matches!(opened.device, Device::Cpu) && opened.passed_over.is_empty());
    Ok(())
}

#[test]
fn a_named_device_that_is_not_there_is_an_error_in_one_line() {
    // No machine has this card.
    let error = DeviceName::Cuda(4096).open().expect_err("no such card");
    let text = error.to_string();
    println!("{text}");
    assert!(matches!(error, Error::Device { .. }));
    assert!(
        text.starts_with("device cuda:4096: ") && text.contains("no CUDA") && !text.contains('\n'),
        "{text}"
    );
    if cfg!(feature = "cuda") {
        assert!(text.contains("LD_LIBRARY_PATH"), "{text}");
    } else {
        assert!(text.contains("feature `cuda`"), "{text}");
    }
}

#[test]
fn auto_opens_something_and_says_what_it_passed_over() -> Result<()> {
    let opened = DeviceName::Auto.open()?;
    println!("{:?}: {:?}", opened.device.location(), opened.passed_over);
    let gpu_builds = usize::from(cfg!(feature = "cuda")) + usize::from(cfg!(feature = "metal"));
    match opened.device {
        // Every kind of GPU that the program was built for has been tried.
        Device::Cpu => assert_eq!(opened.passed_over.len(), gpu_builds),
        _ => assert!(opened.passed_over.len() < gpu_builds),
    }
    for line in &opened.passed_over {
        assert!(line.contains("can be used (") && !line.contains('\n'), "{line}");
    }
    Ok(())
}
