//! Features of images: what FID and its family compare.
//!
//! A number from features means something only beside numbers from the same features, so a set of them carries its
//! [`FeatureSpace`]: which network with which weights, which layer, and how images were resized and scaled on the way
//! in. Where two spaces differ the metrics refuse, and say in what.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What features are features of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpace {
    /// The network, such as `inception-2015-12-05`.
    pub network: String,
    /// SHA-256 of its weights.
    pub weights_sha256: String,
    /// The layer, such as `2048`.
    pub layer: String,
    /// How images come to the network's size: `bilinear`, `bilinear-tf1`, `bicubic-antialiased`, `none`.
    pub resize: String,
    /// What levels 0 and 255 become, such as `2x/255-1` or `(x-128)/128`.
    pub range: String,
}

impl FeatureSpace {
    /// Refuses to compare features of two spaces.
    ///
    /// # Errors
    /// Unless they are the same.
    pub fn check_same(&self, other: &Self) -> Result<()> {
        let pairs = [
            ("network", &self.network, &other.network),
            ("weights", &self.weights_sha256, &other.weights_sha256),
            ("layer", &self.layer, &other.layer),
            ("resizing", &self.resize, &other.resize),
            ("input range", &self.range, &other.range),
        ];
        match pairs.iter().find(|(_, a, b)| a != b) {
            Some((what, a, b)) => {
                Err(Error::FeatureSpaces { what, first: (*a).clone(), second: (*b).clone() })
            }
            None => Ok(()),
        }
    }
}

/// A network that turns images into features; your own classifier, too.
pub trait FeatureNetwork {
    /// What its features are features of.
    fn space(&self) -> &FeatureSpace;

    /// Entries of a feature.
    fn dim(&self) -> usize;

    /// The features of some images.
    ///
    /// # Shapes
    /// `images` `[B, C, H, W]`, levels in u8; the output is `[B, dim]` in f32. A row does not depend on the other images of the
    /// batch.
    ///
    /// # Errors
    /// When the images do not fit the network.
    fn features(&self, images: &Tensor) -> Result<Tensor>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named() {
        let space = |resize: &str| FeatureSpace {
            network: "inception-2015-12-05".into(),
            weights_sha256: "7ff4".into(),
            layer: "2048".into(),
            resize: resize.into(),
            range: "2x/255-1".into(),
        };
        assert!(space("bilinear").check_same(&space("bilinear")).is_ok());
        let error = space("bilinear").check_same(&space("bilinear-tf1")).map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.contains("resizing") && e.contains("bilinear-tf1")));
    }
}
