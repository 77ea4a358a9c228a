//! Published layouts of FID's Inception network: the same tensors by three ways.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use sde_nets::pretrained::inception::{CONVOLUTIONS, of_features, read};
use sde_nets::{Error, Result, Weights};

/// The 94 layers: name in the TensorFlow graph, name of pytorch-fid, in the order in which both files have them.
const NAMES: &str = include_str!("golden/inception-names.txt");

fn layers() -> Vec<(&'static str, &'static str)> {
    NAMES.lines().filter_map(|line| line.split_once(' ')).collect()
}

/// Weights of layers of one channel, another in each.
fn ours(scale: bool) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for (place, (_, name)) in layers().into_iter().enumerate() {
        let mut put = |kind: &str, value: f32, shape: &[usize]| {
            let tensor = Tensor::full(value, shape, &Device::Cpu)?;
            tensors.insert(format!("{name}.{kind}"), tensor);
            Ok::<(), Error>(())
        };
        put("conv.weight", place as f32, &[1, 1, 1, 1])?;
        put("bn.bias", 1000.0 + place as f32, &[1])?;
        put("bn.running_mean", 2000.0 + place as f32, &[1])?;
        put("bn.running_var", 3000.0 + place as f32, &[1])?;
        if scale {
            put("bn.weight", 1.0, &[1])?;
        }
    }
    Ok(tensors)
}

fn bytes(tensors: BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    tensors.into_iter().collect::<Weights>().to_safetensors()
}

#[test]
fn every_layout_comes_to_the_same_tensors() -> Result<()> {
    assert_eq!(layers().len(), CONVOLUTIONS);
    let expected = ours(true)?.into_iter().collect::<Weights>().to_safetensors()?;
    assert_eq!(read(bytes(ours(false)?)?)?.to_safetensors()?, expected);
    let mut graph = BTreeMap::new();
    for (theirs, name) in layers() {
        let kinds = [
            ("weight", "conv.weight"),
            ("beta", "bn.bias"),
            ("mean", "bn.running_mean"),
            ("var", "bn.running_var"),
        ];
        for (kind, our_kind) in kinds {
            let tensor = ours(false)?.remove(&format!("{name}.{our_kind}")).unwrap();
            graph.insert(format!("net.layers.{theirs}.{kind}"), tensor);
        }
    }
    assert_eq!(read(bytes(graph)?)?.to_safetensors()?, expected);
    Ok(())
}

#[test]
fn the_layer_of_classes_is_kept_apart_and_what_is_not_used_left_out() -> Result<()> {
    let mut tensors = ours(true)?;
    let plain = read(bytes(tensors.clone())?)?;
    let zero = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
    for name in
        ["fc.weight", "fc.bias", "AuxLogits.conv0.conv.weight", "Conv2d_1a_3x3.bn.num_batches_tracked"]
    {
        tensors.insert(name.into(), zero.clone());
    }
    let classes = read(bytes(tensors)?)?;
    assert_eq!(classes.len(), plain.len() + 2);
    assert_eq!(of_features(&classes).to_safetensors()?, plain.to_safetensors()?);
    Ok(())
}

#[test]
fn other_files_are_named() -> Result<()> {
    let mut few = ours(true)?;
    few.remove("Mixed_7c.branch_pool.conv.weight");
    let error = read(bytes(few)?).map_err(|error| error.to_string()).unwrap_err();
    assert!(error.contains("FID's Inception network"), "{error}");
    let mut double = ours(true)?;
    let name = "Mixed_6a.branch3x3.conv.weight";
    double.insert(name.into(), Tensor::zeros((1, 1, 1, 1), DType::F64, &Device::Cpu)?);
    let error = read(bytes(double)?).unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(source.contains(name) && source.contains("F64"), "{error}: {source}");
    assert!(read(b"not weights at all".to_vec()).is_err());
    Ok(())
}
