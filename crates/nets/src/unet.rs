//! The U-Nets of diffusion models, one family, as configurations.
//!
//! A path of residual blocks down a pyramid of resolutions, attention at chosen ones, a middle, and a path up
//! that takes back, by concatenation, every state of the path down. The time, the class where there are
//! classes, and the label of augmentations where there is one, enter every block.
//!
//! The published networks for CIFAR-10 are [`UnetConfig::ho_ddpm`], [`UnetConfig::song_ddpm`],
//! [`UnetConfig::ddpmpp`], [`UnetConfig::ncsnpp`], [`UnetConfig::edm_ddpmpp`] and
//! [`UnetConfig::edm_ncsnpp`]. Names of parameters:
//!
//! ```text
//! time.{frequencies, 0, 1}  classes  augment  conv_in  norm_out  conv_out
//! {down, up}.LEVEL.block.J.{norm1, conv1, embedding, norm2, conv2, shortcut}
//! {down, up}.LEVEL.attention.J.{norm, query, key, value, output}
//! mid.block.{0, 1}  mid.attention
//! down.LEVEL.downsample  up.LEVEL.upsample     a convolution, or a block where blocks resample
//! down.LEVEL.pyramid                           from the image one level above to one below
//! ```
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B; Song et al. 2021, arXiv 2011.13456,
//! appendix H; Karras et al. 2022, arXiv 2206.00364, appendix F.
//! Differs: weights of 1×1 maps are `[out, in, 1, 1]` everywhere; where a class is a learned vector, as in no
//! published network here, there is one for none, too.

mod attention_block;
mod conditioning;
mod config;
mod path;
mod published;
mod residual_block;
mod stage;

use candle_core::Tensor;
use sde_core::{Model, Pass, Prediction};

use self::conditioning::Conditioning;
pub use self::config::{Resampling, UnetConfig, UpAttention};
use self::path::{Down, Plan, Up, middle};
use self::stage::Stage;
use crate::head::{Last, Trunk};
use crate::layers::{Conv2d, GroupNorm, NOTHING};
use crate::ops::Window;
use crate::{Builder, Error, Precondition, Result};

/// The network of a [`UnetConfig`].
#[derive(Debug)]
pub struct Unet {
    prediction: Prediction,
    precondition: Option<Precondition>,
    channels: usize,
    /// Height and width must be multiples of this.
    divisor: usize,
    /// Whether images in [0, 1] are brought to [−1, 1].
    centre: bool,
    conditioning: Conditioning,
    input: Conv2d,
    down: Down,
    middle: Stage,
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
        let mut plan = Plan::new(config, image_channels, height);
        let conditioning = Conditioning::new(b, config)?;
        let (down, mut skips) = Down::new(&b.pp("down"), &mut plan)?;
        let middle = middle(&b.pp("mid"), &mut plan)?;
        let up = Up::new(&b.pp("up"), &mut plan, &mut skips)?;
        let same = Window::same(3);
        Ok(Self {
            prediction: config.prediction,
            precondition: config.precondition,
            channels: image_channels,
            divisor: config.divisor(),
            centre: config.centre,
            conditioning,
            input: Conv2d::new(&b.pp("conv_in"), [image_channels, config.channels], 3, same, 1.0)?,
            down,
            middle,
            up,
            norm: GroupNorm::new(&b.pp("norm_out"), plan.channels, plan.norm(plan.channels, true)?)?,
            output: Conv2d::new(&b.pp("conv_out"), [plan.channels, image_channels], 3, same, NOTHING)?,
        })
    }

    /// What the layers compute, before any preconditioning, and the state before the last of them.
    fn raw(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<(Tensor, Tensor)> {
        let (batch, channels, height, width) = x.dims4()?;
        if channels != self.channels || !self.divides(height) || !self.divides(width) {
            return Err(Error::Shape {
                what: "input of the U-Net",
                expected: format!("[B, {}, H, W] with H and W multiples of {}", self.channels, self.divisor),
                found: format!("{:?}", x.dims()),
            });
        }
        let x = if self.centre { x.affine(2.0, -1.0)? } else { x.clone() };
        let embedding = self.conditioning.forward(t, pass, batch)?;
        let mut skips = vec![self.input.forward(&x)?];
        let h = self.down.forward(&x, &mut skips, &embedding, pass.dropout)?;
        let h = self.middle.forward(&h, None, &embedding, pass.dropout)?;
        let h = self.up.forward(h, &mut skips, &embedding, pass.dropout)?;
        Ok((self.output.forward(&self.norm.forward(&h)?)?, h))
    }

    fn divides(&self, size: usize) -> bool {
        size.is_multiple_of(self.divisor)
    }
}

impl Model for Unet {
    fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Labels run from 0 to `classes` − 1; the label `classes`, and no labels at all, mean no class.
    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> sde_core::Result<Tensor> {
        Ok(self.features(x, t, pass)?.0)
    }
}

impl Trunk for Unet {
    fn features(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> Result<(Tensor, Tensor)> {
        let Some(form) = self.precondition else { return self.raw(x, t, pass) };
        let mut features = None;
        let output = form.apply(x, t, |x, t| {
            let (output, state) = self.raw(x, t, pass)?;
            features = Some(state);
            Ok(output)
        })?;
        Ok((output, features.unwrap_or_else(|| x.clone())))
    }

    fn last(&self) -> Last {
        let (channels, norm) = self.norm.shape();
        Last::Map { channels, outputs: self.channels, norm }
    }
}
