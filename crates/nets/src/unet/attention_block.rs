//! Self-attention over positions with a residual: `y = r (x + O attention(Q n, K n, V n))`, n the group
//! normalisation of x, r = 1 or 1/√2.
//!
//! Q, K, V, O are linear maps of channels; O starts as nothing.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B; Song et al. 2021, arXiv 2011.13456,
//! appendix H (1/√2). Karras et al. 2022, arXiv 2206.00364, start one map to Q, K and V with √0.2 times
//! Glorot's law; its fans are C and 3C, so each of the three has the scale 0.2 · ½ = 0.1, which is Song's.

use candle_core::Tensor;

use super::path::Plan;
use super::residual_block::{pointwise_scale, sum};
use crate::layers::{Conv2d, GroupNorm, NOTHING};
use crate::ops::{Products, Window};
use crate::{Builder, Error, Result};

#[derive(Debug)]
pub(super) struct AttentionBlock {
    norm: GroupNorm,
    query: Conv2d,
    key: Conv2d,
    value: Conv2d,
    output: Conv2d,
    heads: usize,
    rescale: bool,
    products: Products,
}

impl AttentionBlock {
    pub(super) fn new(b: &Builder, plan: &Plan<'_>) -> Result<Self> {
        let channels = plan.channels;
        let (key, count) = match plan.config.head_channels {
            None => ("heads", plan.config.heads),
            Some(wide) => ("head_channels", wide),
        };
        if count == 0 || !channels.is_multiple_of(count) {
            return Err(Error::config(key, format!("a divisor of {channels} channels"), count));
        }
        let heads = plan.config.head_channels.map_or(count, |wide| channels / wide);
        let map = |name, scale| Conv2d::new(&b.pp(name), [channels, channels], 1, Window::same(1), scale);
        let scale = pointwise_scale(plan.config);
        Ok(Self {
            norm: GroupNorm::new(&b.pp("norm"), channels, plan.norm(channels, false)?)?,
            query: map("query", scale)?,
            key: map("key", scale)?,
            value: map("value", scale)?,
            output: map("output", NOTHING)?,
            heads,
            rescale: plan.config.rescale,
            products: b.products(),
        })
    }

    /// `[B, C, H, W]` in and out.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let n = self.norm.forward(x)?;
        let map = |map: &Conv2d| -> Result<Tensor> { Ok(map.forward(&n)?.flatten_from(2)?) };
        let attended =
            self.products.attention(&map(&self.query)?, &map(&self.key)?, &map(&self.value)?, self.heads)?;
        sum(x, &self.output.forward(&attended.reshape(x.dims())?)?, self.rescale)
    }
}
