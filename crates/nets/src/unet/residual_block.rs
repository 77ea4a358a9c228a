//! The residual block: `y = r (S x + C₂ D M (C₁ N x))`, with r = 1 or 1/√2.
//!
//! N is group normalisation with SiLU, C a 3×3 convolution, D dropout; S is the identity, or a 1×1
//! convolution where the number of channels or the resolution changes. M brings in the embedding e of time,
//! class and augmentation, mapped to channels: a shift before the normalisation, `M h = SiLU(N(h + E e))`, or
//! a scale and a shift behind it, `M h = SiLU((1 + E₁ e) N(h) + E₂ e)`. A block that changes the resolution
//! does so between N and C₁, and before S. C₂ starts as nothing.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B; Brock, Donahue, Simonyan 2018, arXiv
//! 1809.11096, figure 15 (resampling inside); Song et al. 2021, arXiv 2011.13456, appendix H (1/√2); Dhariwal,
//! Nichol 2021, arXiv 2105.05233, section 3.1 (scale and shift).

use std::f64::consts::FRAC_1_SQRT_2;

use candle_core::Tensor;
use sde_core::noise::BatchNoise;

use super::path::Plan;
use super::{Resampling, UnetConfig};
use crate::layers::{Conv2d, GroupNorm, Linear, NOTHING};
use crate::ops::{self, Window};
use crate::{Builder, Result};

/// What a block does to the resolution, with the filter [1, 3, 3, 1] or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Down { filtered: bool },
    Up { filtered: bool },
}

impl Change {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x.clone()),
            Self::Down { filtered: true } => ops::fir_down_2x(x),
            Self::Down { filtered: false } => ops::avg_pool_2x(x),
            Self::Up { filtered: true } => ops::fir_up_2x(x),
            Self::Up { filtered: false } => ops::upsample_nearest_2x(x),
        }
    }
}

/// The sum of two branches, divided by √2 where `rescale`.
pub(super) fn sum(a: &Tensor, b: &Tensor, rescale: bool) -> Result<Tensor> {
    let sum = (a + b)?;
    Ok(if rescale { (sum * FRAC_1_SQRT_2)? } else { sum })
}

/// The scale of the initial 1×1 maps of this configuration, shortcuts of blocks that resample excepted.
pub(super) fn pointwise_scale(config: &UnetConfig) -> f64 {
    config.pointwise_scale.unwrap_or(1.0)
}

#[derive(Debug)]
pub(super) struct ResidualBlock {
    norms: [GroupNorm; 2],
    convs: [Conv2d; 2],
    embedding: Linear,
    shortcut: Option<Conv2d>,
    change: Change,
    scale_shift: bool,
    rescale: bool,
    dropout: f64,
    site: u32,
}

impl ResidualBlock {
    /// The block whose dropout has the address `site`.
    pub(super) fn new(
        b: &Builder,
        plan: &Plan<'_>,
        channels: [usize; 2],
        change: Change,
        site: u32,
    ) -> Result<Self> {
        let ([inputs, outputs], config) = (channels, plan.config);
        let same = Window::same(3);
        let shortcut_scale = match config.resampling {
            Resampling::BlockPool | Resampling::BlockFir => 1.0,
            Resampling::Conv | Resampling::ConvCentred | Resampling::Pool => pointwise_scale(config),
        };
        let shortcut = (inputs != outputs || change != Change::None)
            .then(|| Conv2d::new(&b.pp("shortcut"), channels, 1, Window::same(1), shortcut_scale))
            .transpose()?;
        let modulations = if config.scale_shift { 2 * outputs } else { outputs };
        Ok(Self {
            norms: [
                GroupNorm::new(&b.pp("norm1"), inputs, plan.norm(inputs, true)?)?,
                GroupNorm::new(&b.pp("norm2"), outputs, plan.norm(outputs, !config.scale_shift)?)?,
            ],
            convs: [
                Conv2d::new(&b.pp("conv1"), channels, 3, same, 1.0)?,
                Conv2d::new(&b.pp("conv2"), [outputs, outputs], 3, same, NOTHING)?,
            ],
            embedding: Linear::new(&b.pp("embedding"), config.embedding(), modulations, 1.0)?,
            shortcut,
            change,
            scale_shift: config.scale_shift,
            rescale: config.rescale,
            dropout: config.dropout,
            site,
        })
    }

    /// `x` `[B, inputs, H, W]`, `embedding` `[B, E]`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        embedding: &Tensor,
        dropout: Option<&BatchNoise>,
    ) -> Result<Tensor> {
        let h = self.change.apply(&self.norms[0].forward(x)?)?;
        let mut h = self.modulate(&h, &self.embedding.forward(embedding)?)?;
        if let Some(noise) = dropout.filter(|_| self.dropout > 0.0) {
            h = ops::dropout(&h, self.dropout, noise, self.site)?;
        }
        let h = self.convs[1].forward(&h)?;
        let x = self.change.apply(x)?;
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(&x)?,
            None => x,
        };
        sum(&x, &h, self.rescale)
    }

    /// M, behind the first convolution.
    fn modulate(&self, h: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let ([_, norm], [conv, _]) = (&self.norms, &self.convs);
        if !self.scale_shift {
            return norm.forward(&conv.forward_shifted(h, embedding)?);
        }
        let h = norm.forward(&conv.forward(h)?)?;
        let (batch, channels, _, _) = h.dims4()?;
        let half = |i| embedding.narrow(1, i * channels, channels)?.reshape((batch, channels, 1, 1));
        ops::silu(&h.broadcast_mul(&(half(0)? + 1.0)?)?.broadcast_add(&half(1)?)?)
    }
}
