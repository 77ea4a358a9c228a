//! Outputs and gradients of Ho's network against those of another implementation, to rounding (see
//! `golden/README.md`).

mod common;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use common::{by_recipe, distance, dot};
use sde_core::{Model, Pass};
use sde_nets::{Builder, Params, Result, TimeFeatures, Unet, UnetConfig, Weights};

type Failure = Box<dyn std::error::Error>;

const CPU: Device = Device::Cpu;

fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn arrays(name: &str) -> Result<HashMap<String, Tensor>> {
    let arrays = Tensor::read_npz(golden(&format!("{name}.npz")))?;
    arrays.into_iter().map(|(key, t)| Ok((key, t.to_dtype(DType::F64)?))).collect()
}

/// The peer's parameters by recipe, under our names, in the order of the peer's.
fn weights(name: &str, seed: u64, levels: usize) -> std::result::Result<Vec<(String, Tensor)>, Failure> {
    let shapes = std::fs::read_to_string(golden(&format!("{name}.tensors.json")))?;
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_str(&shapes)?;
    let named = by_recipe(&shapes, seed)?.into_iter().map(|(name, tensor)| {
        // Our maps of attention are 1×1 convolutions.
        let pointwise = name.contains(".to_") && tensor.rank() == 2;
        let tensor = if pointwise { tensor.unsqueeze(2)?.unsqueeze(3)? } else { tensor };
        Ok((our_name(&name, levels), tensor))
    });
    named.collect()
}

fn our_name(theirs: &str, levels: usize) -> String {
    let mut name = theirs.to_owned();
    for level in 0..levels {
        name = name.replace(&format!("up_blocks.{level}."), &format!("up.{}.", levels - 1 - level));
    }
    for (theirs, ours) in [
        ("time_embedding.linear_1", "time.0"),
        ("time_embedding.linear_2", "time.1"),
        ("conv_norm_out", "norm_out"),
        ("mid_block.attentions.0", "mid.attention"),
        ("mid_block", "mid"),
        ("down_blocks", "down"),
        ("resnets", "block"),
        ("attentions", "attention"),
        ("downsamplers.0.conv", "downsample"),
        ("upsamplers.0.conv", "upsample"),
        ("time_emb_proj", "embedding"),
        ("conv_shortcut", "shortcut"),
        ("group_norm", "norm"),
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "output"),
    ] {
        name = name.replace(theirs, ours);
    }
    name
}

fn config(channels: usize, multipliers: &[usize], attention: usize) -> UnetConfig {
    UnetConfig {
        channels,
        multipliers: multipliers.to_vec(),
        attention: vec![attention],
        dropout: 0.0,
        time: TimeFeatures::Sinusoidal {
            max_period: 10_000.0,
            freq_shift: 1,
            flip_sin_to_cos: false,
            time_scale: 1.0,
            time_shift: 0.0,
        },
        ..UnetConfig::ho_ddpm()
    }
}

/// Compares outputs at every time, and gradients with respect to the input at those that the peer has them
/// for.
fn compare(net: &Unet, arrays: &HashMap<String, Tensor>) -> Result<()> {
    let times = arrays["t"].to_vec1::<f64>()?;
    let (x, v) = (Var::from_tensor(&arrays["x"])?, &arrays["v"]);
    for (i, &t) in times.iter().enumerate() {
        // The peer took its times in float32; 123.456 is not one.
        let t = Tensor::full(f64::from(t as f32), x.dim(0)?, &CPU)?;
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

#[test]
fn a_small_network_and_all_its_parameter_gradients() -> std::result::Result<(), Failure> {
    let config = UnetConfig { heads: 8, groups: Some(8), ..config(32, &[1, 2], 8) };
    let named = weights("unet_small", 2024, 2)?;
    let arrays = arrays("unet_small")?;
    let build = |b: &Builder| Unet::new(b, &config, &[3, 16, 16]);
    let given: Weights = named.iter().cloned().collect();
    compare(&given.freeze(DType::F64, &CPU, build)?, &arrays)?;

    let (net, params) = Params::restore(&given, DType::F64, &CPU, build)?;
    assert_eq!(params.count(), 1_002_883);
    let t = Tensor::full(arrays["t"].to_vec1::<f64>()?[0], 2, &CPU)?;
    let output = net.forward(&arrays["x"], &t, Pass::EVAL)?;
    let gradients = (output * &arrays["v"])?.sum_all()?.backward()?;
    let norms = arrays["param_grad_norms"].to_vec1::<f64>()?;
    assert_eq!(norms.len(), named.len());
    for ((name, _), expected) in named.iter().zip(norms) {
        let gradient = params.get(name).and_then(|var| gradients.get(var.as_tensor()));
        let gradient = gradient.unwrap_or_else(|| panic!("no gradient for {name}"));
        let found = dot(gradient, gradient)?.sqrt();
        assert!((found - expected).abs() < 1e-9 * (1.0 + expected), "{name}: {found} {expected}");
    }
    Ok(())
}

#[test]
fn the_cifar10_network_of_35_million_parameters() -> std::result::Result<(), Failure> {
    let config = config(128, &[1, 2, 2, 2], 16);
    let name = "unet_ddpm_cifar10_32";
    let given: Weights = weights(name, 777, 4)?.into_iter().collect();
    let net = given.freeze(DType::F64, &CPU, |b| Unet::new(b, &config, &[3, 32, 32]))?;
    Ok(compare(&net, &arrays(name)?)?)
}
