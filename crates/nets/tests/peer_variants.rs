//! DDPM++, NCSN++ and Karras et al.'s two networks against a second implementation, to rounding (see
//! `golden/README.md`).

mod common;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use common::{by_recipe, distance};
use sde_core::{Model, Pass};
use sde_nets::{Result, TimeFeatures, Unet, UnetConfig, Weights};

type Failure = Box<dyn std::error::Error>;

fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// A published network with eight channels.
fn small(multipliers: &[usize], blocks: usize, attention: usize, published: UnetConfig) -> UnetConfig {
    UnetConfig {
        channels: 8,
        multipliers: multipliers.to_vec(),
        blocks,
        attention: vec![attention],
        time_dim: published.time_dim.map(|_| 16),
        dropout: 0.0,
        ..published
    }
}

fn agree(name: &str, seed: u64, config: &UnetConfig) -> std::result::Result<(), Failure> {
    let shapes = std::fs::read_to_string(golden("unet_variants.tensors.json"))?;
    let shapes: BTreeMap<String, BTreeMap<String, Vec<usize>>> = serde_json::from_str(&shapes)?;
    let weights: Weights = by_recipe(&shapes[name], seed)?.into_iter().collect();
    let net = weights.freeze(DType::F64, &Device::Cpu, |b| Unet::new(b, config, &[3, 8, 8]))?;

    let arrays: HashMap<String, Tensor> =
        Tensor::read_npz(golden("unet_variants.npz"))?.into_iter().collect();
    let array = |key: &str| arrays.get(&format!("{name}.{key}"));
    let given = |key: &str| array(key).ok_or_else(|| format!("{name}.{key} is not in the file"));
    let labels = array("labels").map(|labels| labels.to_dtype(DType::U32)).transpose()?;
    let x = Var::from_tensor(given("x")?)?;
    let pass = Pass { labels: labels.as_ref(), augment: array("augment"), dropout: None };
    let output = net.forward(&x, given("t")?, pass)?;
    let error = distance(&output, given("out")?)?;
    assert!(error < 1e-12, "{name}: {error:e}");
    let gradients = (output * given("v")?)?.sum_all()?.backward()?;
    let error = distance(gradients.get(&x).ok_or("no gradient")?, given("grad")?)?;
    assert!(error < 1e-11, "gradient of {name}: {error:e}");
    Ok(())
}

#[test]
fn ddpmpp() -> std::result::Result<(), Failure> {
    agree("ddpmpp", 11, &small(&[1, 2], 2, 8, UnetConfig::ddpmpp(4)))
}

#[test]
fn ncsnpp() -> std::result::Result<(), Failure> {
    agree("ncsnpp", 12, &small(&[1, 2, 2], 1, 4, UnetConfig::ncsnpp(4)))
}

#[test]
fn edm_ncsnpp_with_classes() -> std::result::Result<(), Failure> {
    agree("edm_ncsnpp", 13, &small(&[2, 2], 1, 4, UnetConfig::edm_ncsnpp(Some(3))))
}

#[test]
fn edm_ddpmpp() -> std::result::Result<(), Failure> {
    agree("edm_ddpmpp", 14, &small(&[2, 2], 2, 4, UnetConfig::edm_ddpmpp(None)))
}

/// The features of NCSN++ are those of log σ(t), σ(t) = 0.01 · 5000ᵗ.
#[test]
fn the_time_of_ncsnpp_is_log_sigma() -> Result<()> {
    let TimeFeatures::Fourier { time_scale, time_shift, log: false, .. } = UnetConfig::ncsnpp(4).time else {
        panic!("Fourier features of an affine function of t");
    };
    for t in [0.0, 0.3, 1.0] {
        assert!((time_scale * t + time_shift - (0.01 * 5000f64.powf(t)).ln()).abs() < 1e-14);
    }
    Ok(())
}
