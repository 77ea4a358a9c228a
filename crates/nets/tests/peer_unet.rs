//! Outputs and gradients of Ho's network, read from a folder of diffusers, against those of that implementation, to
//! rounding (see `golden/README.md`); and the folder written again.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use common::{by_recipe, distance, dot};
use sde_core::{Model, Pass};
use sde_nets::pretrained::Pretrained;
use sde_nets::pretrained::diffusers::{self, Folder};
use sde_nets::{Builder, Params, Resampling, Result, Unet, UnetConfig, Weights};

type Failure = Box<dyn std::error::Error>;

const CPU: Device = Device::Cpu;

fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn arrays(name: &str) -> Result<HashMap<String, Tensor>> {
    let arrays = Tensor::read_npz(golden(&format!("{name}.npz")))?;
    arrays.into_iter().map(|(key, t)| Ok((key, t.to_dtype(DType::F64)?))).collect()
}

/// The peer's parameters by recipe, in the order of their names.
fn recipe(name: &str, seed: u64) -> std::result::Result<Weights, Failure> {
    let shapes = std::fs::read_to_string(golden(&format!("{name}.tensors.json")))?;
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_str(&shapes)?;
    let single = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_dtype(DType::F32)?));
    by_recipe(&shapes, seed)?.into_iter().map(single).collect()
}

/// The peer's folder with these tensors, read back. Its chain's times are ours less one.
fn read_folder(name: &str, tensors: &Weights) -> std::result::Result<Pretrained, Failure> {
    let folder = tempfile::tempdir()?;
    std::fs::copy(golden(&format!("{name}.config.json")), folder.path().join(diffusers::CONFIG))?;
    std::fs::write(folder.path().join(diffusers::WEIGHTS[0]), tensors.to_safetensors()?)?;
    let read = Folder::open(folder.path())?;
    assert_eq!(read.schedule()?, None);
    Ok(read.read()?)
}

/// Compares outputs at every time, and gradients with respect to the input at those that the peer has them
/// for.
fn compare(net: &Unet, arrays: &HashMap<String, Tensor>) -> Result<()> {
    let times = arrays["t"].to_vec1::<f64>()?;
    let (x, v) = (Var::from_tensor(&arrays["x"])?, &arrays["v"]);
    for (i, &t) in times.iter().enumerate() {
        // The peer took its times in float32; 123.456 is not one.
        let t = Tensor::full(f64::from(t as f32) + 1.0, x.dim(0)?, &CPU)?;
        let output = net.forward(&x, &t, Pass::EVAL)?;
        let error = distance(&output, &arrays["out_f64"].get(i)?)?;
        assert!(error < 1e-9, "output at time {i}: {error:e}");
        if i < arrays["grad_f64"].dim(0)? {
            let gradients = (output * v)?.sum_all()?.backward()?;
            let gradient = gradients.get(&x).expect("the input has a gradient");
            let error = distance(gradient, &arrays["grad_f64"].get(i)?)?;
            assert!(error < 1e-9, "input gradient at time {i}: {error:e}");
            let hutchinson = arrays["hutchinson"].get(i)?.sum_all()?.to_scalar::<f64>()?;
            assert!((dot(gradient, v)? - hutchinson).abs() < 1e-9 * (1.0 + hutchinson.abs()));
        }
    }
    Ok(())
}

/// The tensors that the exporter writes.
fn exported(config: &UnetConfig, sample_shape: &[usize], weights: &Weights) -> Result<Weights> {
    let files = diffusers::write(config, sample_shape, None, weights)?;
    let (_, bytes) = files.iter().find(|(path, _)| path.ends_with(diffusers::WEIGHTS[0])).expect("tensors");
    Weights::from_safetensors(bytes, &CPU)
}

#[test]
fn a_small_network_and_all_its_parameter_gradients() -> std::result::Result<(), Failure> {
    let (name, arrays) = ("unet_small", arrays("unet_small")?);
    let original = recipe(name, 2024)?;
    let Pretrained { net: config, sample_shape, weights, .. } = read_folder(name, &original)?;
    let published = UnetConfig {
        dropout: 0.0,
        channels: 32,
        multipliers: vec![1, 2],
        attention: vec![8],
        head_channels: Some(8),
        groups: Some(8),
        epsilon: Some(1e-6),
        ..UnetConfig::ho_ddpm()
    };
    assert_eq!(config, published);
    let build = |b: &Builder| Unet::new(b, &config, &sample_shape);
    compare(&weights.freeze(DType::F64, &CPU, build)?, &arrays)?;

    let (net, params) = Params::restore(&weights, DType::F64, &CPU, build)?;
    assert_eq!(params.count(), 1_002_883);
    let t = Tensor::full(arrays["t"].to_vec1::<f64>()?[0] + 1.0, 2, &CPU)?;
    let output = net.forward(&arrays["x"], &t, Pass::EVAL)?;
    let gradients = (output * &arrays["v"])?.sum_all()?.backward()?;
    let gradient = |(name, var): (&str, &Var)| {
        let gradient = gradients.get(var.as_tensor()).unwrap_or_else(|| panic!("no gradient for {name}"));
        (name.to_owned(), gradient.clone())
    };
    // The peer's norms are in the order of its names.
    let gradients = exported(&config, &sample_shape, &params.iter().map(gradient).collect())?;
    let norms = arrays["param_grad_norms"].to_vec1::<f64>()?;
    assert_eq!(norms.len(), gradients.len());
    for ((name, gradient), expected) in gradients.iter().zip(norms) {
        let found = dot(gradient, gradient)?.sqrt();
        assert!((found - expected).abs() < 1e-9 * (1.0 + expected), "{name}: {found} {expected}");
    }
    Ok(())
}

#[test]
fn a_folder_is_written_as_it_was_read_and_old_names_are_read_too() -> std::result::Result<(), Failure> {
    let (name, original) = ("unet_small", recipe("unet_small", 2024)?);
    let Pretrained { net, sample_shape, weights, .. } = read_folder(name, &original)?;
    assert_eq!(exported(&net, &sample_shape, &weights)?.to_safetensors()?, original.to_safetensors()?);
    let files = diffusers::write(&net, &sample_shape, None, &weights)?;
    let (_, written) = files.iter().find(|(path, _)| path.ends_with(diffusers::CONFIG)).expect("settings");
    let written: serde_json::Value = serde_json::from_slice(written)?;
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(golden(&format!("{name}.config.json")))?)?;
    for (key, value) in golden.as_object().expect("an object") {
        assert!(key.starts_with("_diffusers") || written[key] == *value, "{key}: {} {value}", written[key]);
    }
    let old = |(name, tensor): (String, Tensor)| {
        let renamed = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
        (renamed.iter().fold(name, |name, (new, old)| name.replace(new, old)), tensor)
    };
    let old: Weights = original.into_iter().map(old).collect();
    assert!(old.iter().any(|(name, _)| name.ends_with("proj_attn.bias")));
    assert_eq!(read_folder(name, &old)?.weights.to_safetensors()?, weights.to_safetensors()?);
    Ok(())
}

#[test]
fn the_cifar10_network_of_35_million_parameters() -> std::result::Result<(), Failure> {
    let name = "unet_ddpm_cifar10_32";
    let Pretrained { net: config, sample_shape, weights, .. } = read_folder(name, &recipe(name, 777)?)?;
    let published =
        UnetConfig { dropout: 0.0, groups: Some(32), epsilon: Some(1e-6), ..UnetConfig::ho_ddpm() };
    assert_eq!(config, published);
    let net = weights.freeze(DType::F64, &CPU, |b| Unet::new(b, &config, &sample_shape))?;
    Ok(compare(&net, &arrays(name)?)?)
}

#[test]
fn a_network_of_the_default_settings() -> std::result::Result<(), Failure> {
    let (name, arrays) = ("unet_defaults", arrays("unet_defaults")?);
    let Pretrained { net: config, sample_shape, weights, .. } = read_folder(name, &recipe(name, 31)?)?;
    // Other paddings, heads, ε and features than any published network's.
    assert_eq!(config.resampling, Resampling::ConvCentred);
    assert_eq!((config.head_channels, config.epsilon), (Some(8), Some(1e-5)));
    let net = weights.freeze(DType::F64, &CPU, |b| Unet::new(b, &config, &sample_shape))?;
    for (i, t) in arrays["t"].to_vec1::<f64>()?.into_iter().enumerate() {
        let output = net.forward(&arrays["x"], &Tensor::full(t + 1.0, 2, &CPU)?, Pass::EVAL)?;
        let error = distance(&output, &arrays["out_f64"].get(i)?)?;
        assert!(error < 1e-9, "output at time {i}: {error:e}");
    }
    Ok(())
}
