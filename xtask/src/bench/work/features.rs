//! Features of images by the FID's Inception network.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use sde_core::noise::Noise;
use sde_eval::FeatureNetwork;
use sde_eval::inception::{Inception, InceptionFeatures, InceptionInput, InceptionLayer, InputRange, Resize};

use super::{Work, normal};

/// The last 2048 channels, with pytorch-fid's resizing and range.
pub struct Features {
    features: InceptionFeatures,
    images: Tensor,
    parameters: usize,
}

impl Features {
    /// The network with weights that know nothing, on images of random levels.
    pub fn new(batch: usize, size: usize, device: &Device) -> Result<Self> {
        let weights = Inception::untrained_weights(Noise::new(0))?;
        // A normalisation whose scale is absent has one.
        let count = |(name, tensor): (&str, &Tensor)| match name.rsplit('.').next() {
            Some("weight") => tensor.elem_count(),
            Some("bias") => 2 * tensor.elem_count(),
            _ => 0,
        };
        let parameters = weights.iter().map(count).sum();
        let input = InceptionInput { resize: Resize::Bilinear, range: InputRange::Symmetric };
        let network = Inception::new(&weights, device)?;
        let features = InceptionFeatures::new(network, "", InceptionLayer::Pool2048, input)?;
        let levels =
            normal(0, batch, &[3, size, size], &Device::Cpu)?.affine(40.0, 128.0)?.clamp(0.0, 255.0)?;
        Ok(Self { features, images: levels.to_dtype(DType::U8)?, parameters })
    }
}

impl Work for Features {
    fn run(&mut self) -> Result<()> {
        self.features.features(&self.images)?;
        Ok(())
    }

    fn parameters(&self) -> Option<usize> {
        Some(self.parameters)
    }
}
