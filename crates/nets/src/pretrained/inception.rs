//! The weights of FID's Inception network, in the layouts in which they are published.
//!
//! | layout | names | batch normalisation |
//! |---|---|---|
//! | pytorch-fid's `.pth`, torch-fidelity's | `Mixed_5b.branch1x1.conv.weight` | scale (all ones), bias, running mean and variance |
//! | TorchScript, names of the TensorFlow graph | `layers.mixed.conv.weight` | beta, mean, var; no scale |
//! | safetensors, ours | as pytorch-fid's | the same |
//!
//! All three come to the same tensors under pytorch-fid's names: a network and a hash that do not depend on the way the weights came.
//! The layer of classes, `fc`, is kept where a file has it. The network itself is in `sde-eval`.
//!
//! Reference: Szegedy et al. 2016, arXiv 1512.00567; the 2015-12-05 weights of its authors, which FID is defined by
//! (Heusel et al. 2017, arXiv 1706.08500).

use candle_core::{DType, Device, Tensor};

use super::pickle::container::is_pth;
use super::pickle::read_pth;
use crate::{Error, Result, Weights};

/// The number of convolutions.
pub const CONVOLUTIONS: usize = 94;

/// What a file of weights holds, under pytorch-fid's names, in f32.
///
/// # Errors
/// [`Error::Pth`] or [`Error::Format`] for a file of another kind, and where names or types are not those of the network.
/// Shapes are compared where the network is built.
pub fn read(bytes: Vec<u8>) -> Result<Weights> {
    let tensors = if is_pth(&bytes) {
        read_pth(bytes)?.to_weights()?
    } else {
        Weights::from_safetensors(&bytes, &Device::Cpu)?
    };
    canonical(&tensors)
}

/// The weights without the layer of classes: what features depend on, and what their hash is taken of.
pub fn of_features(weights: &Weights) -> Weights {
    let features = weights.iter().filter(|(name, _)| !name.starts_with("fc."));
    features.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
}

fn canonical(tensors: &Weights) -> Result<Weights> {
    let mut found = Vec::new();
    for (name, tensor) in tensors.iter() {
        let Some(name) = ours(name) else { continue };
        if tensor.dtype() != DType::F32 {
            return Err(foreign(format!(
                "{name} is in {:?}, where all of the published ones are in f32",
                tensor.dtype()
            )));
        }
        found.push((name, tensor.clone()));
    }
    let convolutions: Vec<String> =
        found.iter().filter_map(|(name, _)| name.strip_suffix(".conv.weight").map(str::to_owned)).collect();
    if convolutions.len() != CONVOLUTIONS {
        return Err(foreign(format!(
            "{} convolutions of {CONVOLUTIONS} have a name that is known",
            convolutions.len()
        )));
    }
    for convolution in convolutions {
        let (scale, bias) = (format!("{convolution}.bn.weight"), format!("{convolution}.bn.bias"));
        if found.iter().any(|(name, _)| *name == scale) {
            continue;
        }
        let bias = found.iter().find(|(name, _)| *name == bias);
        let (_, bias) = bias.ok_or_else(|| foreign(format!("{convolution} has no bias")))?;
        let ones = Tensor::ones(bias.dims(), DType::F32, &Device::Cpu)?;
        found.push((scale, ones));
    }
    Ok(found.into_iter().collect())
}

fn foreign(what: String) -> Error {
    Error::Format(format!("these are not the weights of FID's Inception network: {what}").into())
}

/// The name of a tensor in our layout; none of what the network does not have.
fn ours(theirs: &str) -> Option<String> {
    if let Some((_, name)) = theirs.rsplit_once("layers.") {
        return of_graph(name);
    }
    if let Some(name) = theirs.strip_prefix("output.").filter(|name| ["weight", "bias"].contains(name)) {
        return Some(format!("fc.{name}"));
    }
    let unused = theirs.starts_with("AuxLogits.") || theirs.ends_with(".num_batches_tracked");
    let known = theirs.starts_with("fc.") || theirs.contains(".conv.") || theirs.contains(".bn.");
    (known && !unused).then(|| theirs.to_owned())
}

/// From a name of the TensorFlow graph, such as `mixed_4.tower.conv_1.beta`.
fn of_graph(name: &str) -> Option<String> {
    let (path, tensor) = name.rsplit_once('.')?;
    let tensor = match tensor {
        "weight" => "conv.weight",
        "beta" => "bn.bias",
        "mean" => "bn.running_mean",
        "var" => "bn.running_var",
        _ => return None,
    };
    let layer = match path.split_once('.') {
        None => stem(path)?.to_owned(),
        Some((block, branch)) => {
            let (block, kind) = mixed(block)?;
            format!("{block}.{}", kind.branch(branch)?)
        }
    };
    Some(format!("{layer}.{tensor}"))
}

fn stem(path: &str) -> Option<&'static str> {
    Some(match path {
        "conv" => "Conv2d_1a_3x3",
        "conv_1" => "Conv2d_2a_3x3",
        "conv_2" => "Conv2d_2b_3x3",
        "conv_3" => "Conv2d_3b_1x1",
        "conv_4" => "Conv2d_4a_3x3",
        _ => return None,
    })
}

/// The five kinds of blocks.
#[derive(Debug, Clone, Copy)]
enum Kind {
    A,
    B,
    C,
    D,
    E,
}

fn mixed(block: &str) -> Option<(&'static str, Kind)> {
    Some(match block {
        "mixed" => ("Mixed_5b", Kind::A),
        "mixed_1" => ("Mixed_5c", Kind::A),
        "mixed_2" => ("Mixed_5d", Kind::A),
        "mixed_3" => ("Mixed_6a", Kind::B),
        "mixed_4" => ("Mixed_6b", Kind::C),
        "mixed_5" => ("Mixed_6c", Kind::C),
        "mixed_6" => ("Mixed_6d", Kind::C),
        "mixed_7" => ("Mixed_6e", Kind::C),
        "mixed_8" => ("Mixed_7a", Kind::D),
        "mixed_9" => ("Mixed_7b", Kind::E),
        "mixed_10" => ("Mixed_7c", Kind::E),
        _ => return None,
    })
}

impl Kind {
    /// A branch's name, numbered along the branch.
    fn branch(self, path: &str) -> Option<String> {
        if let Self::E = self {
            return last_blocks(path).map(str::to_owned);
        }
        let (tower, place) = match path.split_once('.') {
            None => (path, None),
            Some((tower, "conv")) => (tower, Some(1)),
            Some((tower, rest)) => (tower, Some(rest.strip_prefix("conv_")?.parse::<usize>().ok()? + 1)),
        };
        let name = match (self, tower) {
            (Self::B, "conv") => "branch3x3",
            (_, "conv") => "branch1x1",
            (_, "tower_2") => "branch_pool",
            (Self::A, "tower") => "branch5x5",
            (Self::C, "tower") => "branch7x7",
            (Self::C, "tower_1") => "branch7x7dbl",
            (Self::D, "tower") => "branch3x3",
            (Self::D, "tower_1") => "branch7x7x3",
            (Self::A, "tower_1") | (Self::B, "tower") => "branch3x3dbl",
            _ => return None,
        };
        Some(match place {
            Some(place) if name != "branch_pool" => format!("{name}_{place}"),
            _ => name.to_owned(),
        })
    }
}

/// The branches of the last two blocks, which fork.
fn last_blocks(path: &str) -> Option<&'static str> {
    Some(match path {
        "conv" => "branch1x1",
        "tower_conv" => "branch3x3_1",
        "tower_mixed_conv" => "branch3x3_2a",
        "tower_mixed_conv_1" => "branch3x3_2b",
        "tower_1_conv" => "branch3x3dbl_1",
        "tower_1_conv_1" => "branch3x3dbl_2",
        "tower_1_mixed_conv" => "branch3x3dbl_3a",
        "tower_1_mixed_conv_1" => "branch3x3dbl_3b",
        "tower_2_conv" => "branch_pool",
        _ => return None,
    })
}
