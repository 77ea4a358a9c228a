//! Self-attention over positions with a residual: `y = x + O attention(Q n, K n, V n)`, n the group
//! normalisation of x.
//!
//! Q, K, V, O are linear maps of channels; O starts as nothing.
//!
//! Reference: Ho, Jain, Abbeel 2020, arXiv 2006.11239, appendix B.

use candle_core::Tensor;

use super::path::Plan;
use crate::layers::{Conv2d, GroupNorm, NOTHING};
use crate::ops::{self, Window};
use crate::{Builder, Error, Result};

#[derive(Debug)]
pub(super) struct AttentionBlock {
    norm: GroupNorm,
    query: Conv2d,
    key: Conv2d,
    value: Conv2d,
    output: Conv2d,
    heads: usize,
}

impl AttentionBlock {
    pub(super) fn new(b: &Builder, plan: &Plan<'_>) -> Result<Self> {
        let (channels, heads) = (plan.channels, plan.config.heads);
        if !channels.is_multiple_of(heads) {
            return Err(Error::config("heads", format!("a divisor of {channels} channels"), heads));
        }
        let map = |name, scale| Conv2d::new(&b.pp(name), [channels, channels], 1, Window::same(1), scale);
        Ok(Self {
            norm: GroupNorm::new(&b.pp("norm"), channels, plan.norm(channels, false)?)?,
            query: map("query", 1.0)?,
            key: map("key", 1.0)?,
            value: map("value", 1.0)?,
            output: map("output", NOTHING)?,
            heads,
        })
    }

    /// `[B, C, H, W]` in and out.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let n = self.norm.forward(x)?;
        let map = |map: &Conv2d| -> Result<Tensor> { Ok(map.forward(&n)?.flatten_from(2)?) };
        let attended = ops::attention(&map(&self.query)?, &map(&self.key)?, &map(&self.value)?, self.heads)?;
        Ok((x + self.output.forward(&attended.reshape(x.dims())?)?)?)
    }
}
