//! The choice of a network by configuration, as presets hold it.

use sde_core::Model;
use serde::{Deserialize, Serialize};

use crate::head::Trunk;
use crate::{Builder, Mlp, MlpConfig, Result, Rezero, RezeroConfig, Unet, UnetConfig};

/// A network's configuration; the key `kind` says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NetConfig {
    /// A fully connected network for points.
    Mlp(MlpConfig),
    /// A residual network for points and tabular data.
    Rezero(RezeroConfig),
    /// The DDPM U-Net for images.
    Unet(UnetConfig),
}

impl NetConfig {
    /// The network for samples of `sample_shape`: `[C, H, W]` for images, `[D]` for points.
    ///
    /// # Errors
    /// [`crate::Error::Config`] where the configuration describes no network for such samples.
    pub fn build(&self, b: &Builder, sample_shape: &[usize]) -> Result<Box<dyn Model + Send + Sync>> {
        Ok(match self {
            Self::Mlp(config) => Box::new(Mlp::new(b, config, sample_shape)?),
            Self::Rezero(config) => Box::new(Rezero::new(b, config, sample_shape)?),
            Self::Unet(config) => Box::new(Unet::new(b, config, sample_shape)?),
        })
    }

    /// The same network, showing its last state.
    pub(crate) fn trunk(&self, b: &Builder, sample_shape: &[usize]) -> Result<Box<dyn Trunk + Send + Sync>> {
        Ok(match self {
            Self::Mlp(config) => Box::new(Mlp::new(b, config, sample_shape)?),
            Self::Rezero(config) => Box::new(Rezero::new(b, config, sample_shape)?),
            Self::Unet(config) => Box::new(Unet::new(b, config, sample_shape)?),
        })
    }
}

impl NetConfig {
    /// The number of classes that the network knows, for which it takes labels; none for an unconditional one.
    pub fn classes(&self) -> Option<usize> {
        match self {
            Self::Mlp(config) => config.classes,
            Self::Rezero(_) => None,
            Self::Unet(config) => config.classes,
        }
    }
}

/// [`sde_core::Prediction`] by name: `noise`, `data`, `velocity`, `score`, `v`.
pub(crate) mod prediction {
    use sde_core::Prediction;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Prediction", rename_all = "snake_case")]
    enum Name {
        Noise,
        Data,
        Velocity,
        Score,
        V,
    }

    pub(crate) fn serialize<S: Serializer>(prediction: &Prediction, to: S) -> Result<S::Ok, S::Error> {
        Name::serialize(prediction, to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Prediction, D::Error> {
        Name::deserialize(from)
    }
}
