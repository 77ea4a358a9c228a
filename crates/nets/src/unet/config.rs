//! What configures a U-Net: the keys of a preset's `net` section, and what they exclude.

use sde_core::Prediction;
use serde::{Deserialize, Serialize};

use crate::embedding::TimeFeatures;
use crate::{Error, Precondition, Result};

/// Where attention stands on the path up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpAttention {
    /// After the last block of a level (Song et al.).
    LastBlock,
    /// After every block of a level (Ho et al.).
    EveryBlock,
}

/// How the resolution changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampling {
    /// Down by a 3×3 convolution of stride 2, up by nearest neighbour and a 3×3 convolution.
    Conv,
    /// The same with zeros on all four sides of what is halved, not below and right only (diffusers' default).
    ConvCentred,
    /// Down by the mean of 2×2 squares, up by nearest neighbour.
    Pool,
    /// As [`Resampling::Pool`], inside a residual block of its own, on both of its branches (BigGAN's).
    BlockPool,
    /// The same block with the filter [1, 3, 3, 1] along each axis.
    BlockFir,
}

/// A U-Net. What a key that may be left out leaves out is off, or as its document says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetConfig {
    /// What the output means.
    #[serde(with = "crate::config::prediction")]
    pub prediction: Prediction,
    /// Channels of the first level, an even number.
    pub channels: usize,
    /// Channels of each level, as multiples of `channels`; each further level halves the resolution.
    pub multipliers: Vec<usize>,
    /// Residual blocks a level on the path down; the path up has one more.
    pub blocks: usize,
    /// The heights at which attention follows the blocks.
    pub attention: Vec<usize>,
    /// Where attention stands on the path up.
    pub up_attention: UpAttention,
    /// The number of attention heads.
    pub heads: usize,
    /// Channels of a head; where present, the number of heads follows from it, and `heads` is without a meaning.
    pub head_channels: Option<usize>,
    /// The probability of dropout in each block.
    pub dropout: f64,
    /// How the resolution changes.
    pub resampling: Resampling,
    /// Whether the image, filtered and convolved to each lower resolution, is added there; with
    /// [`Resampling::BlockFir`] only.
    #[serde(default)]
    pub pyramid: bool,
    /// Whether every sum of two branches is divided by √2.
    #[serde(default)]
    pub rescale: bool,
    /// Whether the embedding scales as well as shifts the channels inside a block.
    #[serde(default)]
    pub scale_shift: bool,
    /// Groups of each normalisation; where absent, a quarter of the channels, at most 32.
    pub groups: Option<usize>,
    /// Added to the variance in each normalisation; where absent, 1e-6.
    pub epsilon: Option<f64>,
    /// The scale of the initial query, key and value maps, and of the initial shortcuts unless blocks resample; where
    /// absent, 1 as in Ho's network; 0.1 in Song's and Karras's.
    pub pointwise_scale: Option<f64>,
    /// The number of classes; where absent, the network is unconditional.
    pub classes: Option<usize>,
    /// Whether the class enters as Karras's do: a unit vector of length √classes, mapped linearly and added to the
    /// features of the time. Otherwise it is a learned vector, added to the embedding.
    #[serde(default)]
    pub one_hot: bool,
    /// Entries of the label of augmentations; where absent, the network takes none.
    pub augment: Option<usize>,
    /// Whether images in [0, 1] are brought to [−1, 1] first.
    #[serde(default)]
    pub centre: bool,
    /// Whether stages are run again for their gradients instead of keeping a tape: less memory, a third more time, the
    /// same gradients to rounding. Gradients then come from [`crate::backward`].
    #[serde(default)]
    pub checkpoint: bool,
    /// The number of time features, even; where absent, as many as `channels`.
    pub time_dim: Option<usize>,
    /// The features of the time.
    pub time: TimeFeatures,
    /// What brings inputs and outputs to unit variance; the network then predicts the data, and its time is σ.
    pub precondition: Option<Precondition>,
}

impl UnetConfig {
    /// What height and width must be multiples of.
    pub(super) fn divisor(&self) -> usize {
        1 << (self.multipliers.len() - 1)
    }

    /// The width of the embedding of time and class.
    pub(super) fn embedding(&self) -> usize {
        4 * self.channels
    }

    /// Refuses what is no network for images of this size.
    pub(super) fn check(&self, image_channels: usize, height: usize, width: usize) -> Result<()> {
        let positive = [
            ("channels", self.channels),
            ("blocks", self.blocks),
            ("heads", self.heads),
            ("image channels", image_channels),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(Error::config(field, "positive", value));
            }
        }
        if self.multipliers.is_empty() || self.multipliers.len() > 16 || self.multipliers.contains(&0) {
            let found = format!("{:?}", self.multipliers);
            return Err(Error::config("multipliers", "1 to 16 positive numbers", found));
        }
        let divisor = self.divisor();
        if height == 0 || width == 0 || !height.is_multiple_of(divisor) || !width.is_multiple_of(divisor) {
            let expected =
                format!("short enough to halve {height}×{width} images {} times", self.multipliers.len() - 1);
            return Err(Error::config("multipliers", expected, format!("{:?}", self.multipliers)));
        }
        let resolutions: Vec<usize> = (0..self.multipliers.len()).map(|level| height >> level).collect();
        if let Some(unknown) = self.attention.iter().find(|r| !resolutions.contains(r)) {
            return Err(Error::config("attention", format!("among the heights {resolutions:?}"), unknown));
        }
        if self.pyramid && self.resampling != Resampling::BlockFir {
            return Err(Error::config("pyramid", "false unless `resampling` is \"block_fir\"", true));
        }
        if self.pointwise_scale.is_some_and(|scale| !(scale.is_finite() && scale > 0.0)) {
            let found = format!("{:?}", self.pointwise_scale);
            return Err(Error::config("pointwise_scale", "positive", found));
        }
        if self.epsilon.is_some_and(|epsilon| !(epsilon.is_finite() && epsilon > 0.0)) {
            return Err(Error::config("epsilon", "positive", format!("{:?}", self.epsilon)));
        }
        if self.precondition.is_some() && self.prediction != Prediction::Data {
            let found = format!("{:?}", self.prediction);
            return Err(Error::config("prediction", "\"data\", which is what `precondition` makes", found));
        }
        if let Some(form) = &self.precondition {
            form.check()?;
        }
        if self.one_hot && self.classes.is_none() {
            return Err(Error::config("one_hot", "off where there are no `classes`", true));
        }
        for (field, count) in [("classes", self.classes), ("augment", self.augment)] {
            if count == Some(0) {
                return Err(Error::config(field, "positive, or absent", 0));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("dropout", "at least 0 and below 1", self.dropout));
        }
        Ok(())
    }
}
