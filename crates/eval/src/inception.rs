//! The Inception network of the FID, and its features.
//!
//! [`Inception`] is the network with its weights, under the names of pytorch-fid: `Mixed_5b.branch1x1.conv.weight`, and
//! `….bn.{weight, bias, running_mean, running_var}`, of which `weight` may be absent. [`InceptionFeatures`] is one
//! layer of it on images prepared in one way: a [`FeatureNetwork`].
//!
//! Reference: Heusel et al. 2017, arXiv 1706.08500; Nash et al. 2021, arXiv 2103.03841, for the spatial features.

mod layer;
mod network;
mod resize;

use std::str::FromStr;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::Noise;
use sde_nets::{Builder, Params, Weights};

use self::network::Network;
use self::resize::prepared;
use crate::features::{FeatureNetwork, FeatureSpace};
use crate::{Error, Result};

pub use self::resize::{InputRange, Resize};

/// The network's name in a feature space.
pub const INCEPTION: &str = "inception-2015-12-05";

/// Images that go through the network together; its memory is theirs.
const TOGETHER: usize = 16;

/// A place in the network where features are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InceptionLayer {
    /// The mean over pixels of the 64 channels after the first pooling.
    Pool64,
    /// The mean over pixels of the 192 channels after the second pooling.
    Pool192,
    /// The first 7 channels of `Mixed_6d.branch1x1`, pixel by pixel, 17×17×7: what sFID compares.
    Spatial,
    /// The mean over pixels of the 768 channels before the auxiliary classifier.
    Pool768,
    /// The mean over pixels of the last 2048 channels: what FID and KID compare.
    Pool2048,
    /// The classifier's logits, where the weights have one: what the Inception Score takes the softmax of.
    Logits,
    /// The same without the classifier's bias, as some tools do.
    LogitsWithoutBias,
}

impl InceptionLayer {
    /// All of them, from the image on.
    pub const ALL: [Self; 7] = [
        Self::Pool64,
        Self::Pool192,
        Self::Spatial,
        Self::Pool768,
        Self::Pool2048,
        Self::Logits,
        Self::LogitsWithoutBias,
    ];

    /// Its name, as in a feature space.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pool64 => "64",
            Self::Pool192 => "192",
            Self::Spatial => "spatial",
            Self::Pool768 => "768",
            Self::Pool2048 => "2048",
            Self::Logits => "logits",
            Self::LogitsWithoutBias => "logits-without-bias",
        }
    }
}

impl FromStr for InceptionLayer {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|layer| layer.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::mismatch("layer of the Inception network", names, name)
        })
    }
}

/// How images come into the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InceptionInput {
    /// To the network's size.
    pub resize: Resize,
    /// What levels become.
    pub range: InputRange,
}

/// The network, on the tensors of a set of weights.
#[derive(Debug, Clone)]
pub struct Inception {
    network: Network,
    device: Device,
}

impl Inception {
    /// The network of these weights, on a device.
    ///
    /// Statistics of training (`num_batches_tracked`) and the auxiliary classifier (`AuxLogits.…`) are passed over.
    ///
    /// # Errors
    /// [`sde_nets::Error::Weights`] with the name of every tensor that is missing, of another shape, or unknown.
    pub fn new(weights: &Weights, device: &Device) -> Result<Self> {
        let used = |name: &str| !name.starts_with("AuxLogits.") && !name.ends_with(".num_batches_tracked");
        let weights: Weights =
            weights.iter().filter(|(name, _)| used(name)).map(|(n, t)| (n.to_owned(), t.clone())).collect();
        let classes = weights.get("fc.weight").and_then(|fc| fc.dims().first().copied());
        let network = weights
            .freeze(DType::F32, &Device::Cpu, |builder| Network::new(builder, &weights, classes, device))?;
        Ok(Self { network, device: device.clone() })
    }

    /// Weights of its names and shapes that know nothing: for measuring its speed, and for tests of files.
    ///
    /// # Errors
    /// Those of tensor operations.
    pub fn untrained_weights(noise: Noise) -> Result<Weights> {
        let (none, device) = (Weights::default(), Device::Cpu);
        let build = |builder: &Builder| Network::new(builder, &none, None, &device);
        Ok(Params::initialise(noise, DType::F32, &device, build)?.1.to_weights()?)
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The classes that its classifier tells apart, where its weights have one.
    pub fn classes(&self) -> Option<usize> {
        self.network.classes()
    }

    /// The entries of a feature.
    ///
    /// # Errors
    /// Where it is made of logits, and the weights have no classifier.
    pub fn dim(&self, layer: InceptionLayer) -> Result<usize> {
        Ok(match layer {
            InceptionLayer::Pool64 => 64,
            InceptionLayer::Pool192 => 192,
            InceptionLayer::Spatial => 17 * 17 * 7,
            InceptionLayer::Pool768 => 768,
            InceptionLayer::Pool2048 => 2048,
            InceptionLayer::Logits | InceptionLayer::LogitsWithoutBias => {
                self.classes().ok_or_else(no_classifier)?
            }
        })
    }

    /// Features of several layers, in the order asked for, by one pass that goes no deeper than needed.
    ///
    /// # Shapes
    /// `images` `[B, C, H, W]` in u8, C 3 or 1; each feature `[B, dim]` in f32, on the CPU.
    ///
    /// # Errors
    /// When the images are none, and those of [`Self::dim`].
    pub fn features(
        &self,
        images: &Tensor,
        input: InceptionInput,
        layers: &[InceptionLayer],
    ) -> Result<Vec<Tensor>> {
        let mut parts = vec![Vec::new(); layers.len()];
        let batch = images.dims().first().copied().unwrap_or_default();
        for first in (0..batch.max(1)).step_by(TOGETHER) {
            let images = images.narrow(0, first, TOGETHER.min(batch - first))?;
            let images = prepared(&images, resize::SIZE, input.resize, input.range)?;
            let found = self.run(&images.to_device(&self.device)?, layers)?;
            for (parts, part) in parts.iter_mut().zip(found) {
                parts.push(part.to_device(&Device::Cpu)?);
            }
        }
        parts.iter().map(|parts| Ok(Tensor::cat(parts, 0)?)).collect()
    }

    /// The same of images that are prepared.
    fn run(&self, images: &Tensor, layers: &[InceptionLayer]) -> Result<Vec<Tensor>> {
        let (network, mut taken) = (&self.network, Taken { layers, found: vec![None; layers.len()] });
        let x = network.to_64(images)?;
        taken.take(InceptionLayer::Pool64, || mean(&x))?;
        if taken.beyond(InceptionLayer::Pool64) {
            let x = network.to_192(&x)?;
            taken.take(InceptionLayer::Pool192, || mean(&x))?;
            if taken.beyond(InceptionLayer::Pool192) {
                self.run_mixed(&x, &mut taken)?;
            }
        }
        taken.found.into_iter().map(|found| found.ok_or_else(no_classifier)).collect()
    }

    /// From 192 channels on.
    fn run_mixed(&self, x: &Tensor, taken: &mut Taken<'_>) -> Result<()> {
        let network = &self.network;
        let x = network.to_mixed_6d(x)?;
        taken.take(InceptionLayer::Spatial, || {
            let first = network.mixed_6d_first(&x)?.narrow(1, 0, 7)?;
            Ok(first.permute((0, 2, 3, 1))?.flatten_from(1)?)
        })?;
        if !taken.beyond(InceptionLayer::Spatial) {
            return Ok(());
        }
        let x = network.to_768(&x)?;
        taken.take(InceptionLayer::Pool768, || mean(&x))?;
        if !taken.beyond(InceptionLayer::Pool768) {
            return Ok(());
        }
        let x = mean(&network.to_2048(&x)?)?;
        taken.take(InceptionLayer::Pool2048, || Ok(x.clone()))?;
        for (layer, biased) in [(InceptionLayer::Logits, true), (InceptionLayer::LogitsWithoutBias, false)] {
            taken.take(layer, || network.logits(&x, biased)?.ok_or_else(no_classifier))?;
        }
        Ok(())
    }
}

fn no_classifier() -> Error {
    let found = "weights without one: pytorch-fid's file and the published graph have it";
    Error::mismatch("Inception network", "fc.weight and fc.bias, a classifier for logits", found)
}

/// The mean over pixels.
fn mean(x: &Tensor) -> Result<Tensor> {
    Ok(x.flatten_from(2)?.mean(2)?)
}

/// The layers asked for, and what was found of them.
struct Taken<'a> {
    layers: &'a [InceptionLayer],
    found: Vec<Option<Tensor>>,
}

impl Taken<'_> {
    fn take(&mut self, layer: InceptionLayer, value: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if self.layers.contains(&layer) {
            let value = value()?;
            let places = self.layers.iter().zip(&mut self.found).filter(|(asked, _)| **asked == layer);
            places.for_each(|(_, found)| *found = Some(value.clone()));
        }
        Ok(())
    }

    /// Whether a layer beyond this one is asked for.
    fn beyond(&self, layer: InceptionLayer) -> bool {
        self.layers.iter().any(|&asked| asked > layer)
    }
}

/// One layer of the network, on images prepared in one way.
#[derive(Debug, Clone)]
pub struct InceptionFeatures {
    network: Inception,
    layer: InceptionLayer,
    input: InceptionInput,
    dim: usize,
    space: FeatureSpace,
}

impl InceptionFeatures {
    /// The features of a layer; `weights_sha256` is what says which weights the network was made of.
    ///
    /// # Errors
    /// Those of [`Inception::dim`].
    pub fn new(
        network: Inception,
        weights_sha256: &str,
        layer: InceptionLayer,
        input: InceptionInput,
    ) -> Result<Self> {
        let dim = network.dim(layer)?;
        let space = FeatureSpace {
            network: INCEPTION.into(),
            weights_sha256: weights_sha256.into(),
            layer: layer.name().into(),
            resize: input.resize.name().into(),
            range: input.range.name().into(),
        };
        Ok(Self { network, layer, input, dim, space })
    }

    /// The network.
    pub fn network(&self) -> &Inception {
        &self.network
    }
}

impl FeatureNetwork for InceptionFeatures {
    fn space(&self) -> &FeatureSpace {
        &self.space
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn features(&self, images: &Tensor) -> Result<Tensor> {
        let found = self.network.features(images, self.input, &[self.layer])?;
        found.into_iter().next().ok_or_else(|| Error::mismatch("layers", "one", "none"))
    }
}
