//! The residual block: `y = S x + C₂ D N₂ (C₁ N₁ x + E e)`.
//!
//! N is group normalisation with SiLU, C a 3×3 convolution, E e the embedding of time and class mapped to
//! channels, D dropout; S is the identity, or a 1×1 convolution where the number of channels changes. C₂
//! starts as nothing.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B.

use candle_core::Tensor;
use sde_core::noise::BatchNoise;

use super::path::Plan;
use crate::layers::{Conv2d, GroupNorm, Linear, NOTHING};
use crate::ops::{self, Window};
use crate::{Builder, Result};

#[derive(Debug)]
pub(super) struct ResidualBlock {
    norms: [GroupNorm; 2],
    convs: [Conv2d; 2],
    embedding: Linear,
    shortcut: Option<Conv2d>,
    dropout: f64,
    site: u32,
}

impl ResidualBlock {
    /// The block whose dropout has the address `site`.
    pub(super) fn new(b: &Builder, plan: &Plan<'_>, channels: [usize; 2], site: u32) -> Result<Self> {
        let [inputs, outputs] = channels;
        let same = Window::same(3);
        let shortcut = (inputs != outputs)
            .then(|| Conv2d::new(&b.pp("shortcut"), channels, 1, Window::same(1), 1.0))
            .transpose()?;
        Ok(Self {
            norms: [
                GroupNorm::new(&b.pp("norm1"), inputs, plan.norm(inputs, true)?)?,
                GroupNorm::new(&b.pp("norm2"), outputs, plan.norm(outputs, true)?)?,
            ],
            convs: [
                Conv2d::new(&b.pp("conv1"), channels, 3, same, 1.0)?,
                Conv2d::new(&b.pp("conv2"), [outputs, outputs], 3, same, NOTHING)?,
            ],
            embedding: Linear::new(&b.pp("embedding"), plan.embedding, outputs, 1.0)?,
            shortcut,
            dropout: plan.config.dropout,
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
        let [norm1, norm2] = &self.norms;
        let [conv1, conv2] = &self.convs;
        let h = conv1.forward_shifted(&norm1.forward(x)?, &self.embedding.forward(embedding)?)?;
        let mut h = norm2.forward(&h)?;
        if let Some(noise) = dropout.filter(|_| self.dropout > 0.0) {
            h = ops::dropout(&h, self.dropout, noise, self.site)?;
        }
        let h = conv2.forward(&h)?;
        Ok(match &self.shortcut {
            Some(shortcut) => (shortcut.forward(x)? + h)?,
            None => (x + h)?,
        })
    }
}
