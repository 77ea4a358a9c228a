//! The U-Net of denoising diffusion models, as a configuration.
//!
//! A path of residual blocks down a pyramid of resolutions, attention at chosen ones, a middle, and a path up
//! that takes back, by concatenation, every state of the path down. The time, and the class where there are
//! classes, enter every block.
//!
//! Two published networks go by the name DDPM. [`UpAttention`] tells them apart: with 128 channels × (1, 2,
//! 2, 2), two blocks a level and attention at 16×16, Song's has 35,218,947 parameters and Ho's 35,746,307.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B; Song et al. 2021, arXiv 2011.13456,
//! appendix H (its DDPM network).
//! Differs: weights of 1×1 maps are `[out, in, 1, 1]` everywhere; class conditioning is ours: a learned
//! vector a class, and one for none, added to the embedding of the time.

mod attention_block;
mod path;
mod residual_block;

use candle_core::Tensor;
use sde_core::{Model, Pass, Prediction};
use serde::{Deserialize, Serialize};

use self::path::{Down, Middle, Plan, Up};
use crate::embedding::{TimeEmbedding, TimeFeatures};
use crate::layers::{Conv2d, GroupNorm, NOTHING};
use crate::ops::Window;
use crate::{Builder, Error, Init, Result, ops, points};

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
    /// Down by the mean of 2×2 squares, up by nearest neighbour.
    Pool,
}

/// The DDPM U-Net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetConfig {
    /// What the output means.
    #[serde(with = "crate::config::prediction")]
    pub prediction: Prediction,
    /// Channels of the first level; also the number of time features, so even.
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
    /// The probability of dropout in each block.
    pub dropout: f64,
    /// How the resolution changes.
    pub resampling: Resampling,
    /// Groups of each normalisation; where absent, a quarter of the channels, at most 32.
    pub groups: Option<usize>,
    /// The number of classes; where absent, the network is unconditional.
    pub classes: Option<usize>,
    /// The features of the time.
    pub time: TimeFeatures,
}

/// The network of a [`UnetConfig`].
#[derive(Debug)]
pub struct Unet {
    prediction: Prediction,
    channels: usize,
    /// Height and width must be multiples of this.
    divisor: usize,
    time: TimeEmbedding,
    classes: Option<Tensor>,
    input: Conv2d,
    down: Down,
    middle: Middle,
    up: Up,
    norm: GroupNorm,
    output: Conv2d,
}

impl Unet {
    /// The network for samples of `sample_shape` `[C, H, W]`.
    ///
    /// # Errors
    /// [`Error::Config`] where the configuration describes no network for such samples.
    pub fn new(b: &Builder, config: &UnetConfig, sample_shape: &[usize]) -> Result<Self> {
        let &[image_channels, height, width] = sample_shape else {
            let found = format!("{sample_shape:?}");
            return Err(Error::config("sample shape", "channels, height and width", found));
        };
        config.check(image_channels, height, width)?;
        let (channels, embedding) = (config.channels, 4 * config.channels);
        let mut plan = Plan::new(config, embedding, height);
        let classes = config
            .classes
            .map(|n| b.pp("classes").get(&[n + 1, embedding], "weight", Init::Normal { std: 1.0 }))
            .transpose()?;
        let (down, mut skips) = Down::new(&b.pp("down"), &mut plan)?;
        let middle = Middle::new(&b.pp("mid"), &mut plan)?;
        let up = Up::new(&b.pp("up"), &mut plan, &mut skips)?;
        let same = Window::same(3);
        Ok(Self {
            prediction: config.prediction,
            channels: image_channels,
            divisor: config.divisor(),
            time: TimeEmbedding::new(&b.pp("time"), &config.time, channels, embedding)?,
            classes,
            input: Conv2d::new(&b.pp("conv_in"), [image_channels, channels], 3, same, 1.0)?,
            down,
            middle,
            up,
            norm: GroupNorm::new(&b.pp("norm_out"), plan.channels, plan.norm(plan.channels, true)?)?,
            output: Conv2d::new(&b.pp("conv_out"), [plan.channels, image_channels], 3, same, NOTHING)?,
        })
    }

    fn output(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        if channels != self.channels || !self.divides(height) || !self.divides(width) {
            return Err(Error::Shape {
                what: "input of the U-Net",
                expected: format!("[B, {}, H, W] with H and W multiples of {}", self.channels, self.divisor),
                found: format!("{:?}", x.dims()),
            });
        }
        points::unaugmented(pass)?;
        // SiLU comes before every use of the embedding.
        let embedding = ops::silu(&self.embed(t, pass.labels, batch)?)?;
        let mut skips = vec![self.input.forward(x)?];
        let h = self.down.forward(&mut skips, &embedding, pass.dropout)?;
        let h = self.middle.forward(&h, &embedding, pass.dropout)?;
        let h = self.up.forward(h, &mut skips, &embedding, pass.dropout)?;
        self.output.forward(&self.norm.forward(&h)?)
    }

    fn divides(&self, size: usize) -> bool {
        size.is_multiple_of(self.divisor)
    }

    /// The embedding of time and class.
    fn embed(&self, t: &Tensor, labels: Option<&Tensor>, batch: usize) -> Result<Tensor> {
        let time = self.time.forward(t)?;
        Ok(match (&self.classes, labels) {
            (None, None) => time,
            (None, Some(_)) => {
                return Err(Error::Shape {
                    what: "class labels",
                    expected: "none, since the network was configured without `classes`".into(),
                    found: "labels".into(),
                });
            }
            (Some(table), None) => time.broadcast_add(&table.narrow(0, table.dim(0)? - 1, 1)?)?,
            (Some(table), Some(labels)) if labels.dims() == [batch] => {
                (time + table.index_select(labels, 0)?)?
            }
            (Some(_), Some(labels)) => {
                return Err(Error::Shape {
                    what: "class labels",
                    expected: format!("[{batch}]"),
                    found: format!("{:?}", labels.dims()),
                });
            }
        })
    }
}

impl Model for Unet {
    fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Labels run from 0 to `classes` − 1; the label `classes`, and no labels at all, mean no class.
    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> sde_core::Result<Tensor> {
        Ok(self.output(x, t, pass)?)
    }
}

impl UnetConfig {
    /// What height and width must be multiples of.
    fn divisor(&self) -> usize {
        1 << (self.multipliers.len() - 1)
    }

    fn check(&self, image_channels: usize, height: usize, width: usize) -> Result<()> {
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
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("dropout", "at least 0 and below 1", self.dropout));
        }
        Ok(())
    }
}
