//! The paths of the U-Net: down, middle, up.
//!
//! The path down keeps every state: the input, the result of each block, and of each halving. The path up
//! takes them back in reverse order, one a block, so it has one block more a level.

use candle_core::Tensor;
use sde_core::noise::BatchNoise;

use super::attention_block::AttentionBlock;
use super::residual_block::ResidualBlock;
use super::{Resampling, UnetConfig, UpAttention};
use crate::layers::Conv2d;
use crate::ops::{GroupNormArgs, Window};
use crate::{Builder, Error, Result, ops};

/// The published networks' ε of every normalisation.
const EPSILON: f64 = 1e-6;

/// Where the construction of the network stands.
pub(super) struct Plan<'a> {
    pub config: &'a UnetConfig,
    /// The width of the embedding of time and class.
    pub embedding: usize,
    /// Channels of the state.
    pub channels: usize,
    /// Height of the state.
    height: usize,
    /// Blocks so far: the address of the next one's dropout.
    site: u32,
}

impl<'a> Plan<'a> {
    pub(super) fn new(config: &'a UnetConfig, embedding: usize, height: usize) -> Self {
        Self { config, embedding, channels: config.channels, height, site: 0 }
    }

    /// The normalisation of `channels` channels.
    pub(super) fn norm(&self, channels: usize, silu: bool) -> Result<GroupNormArgs> {
        let groups = self.config.groups.unwrap_or((channels / 4).clamp(1, 32));
        if groups == 0 || !channels.is_multiple_of(groups) {
            let expected = format!("a divisor of every number of channels, {channels} among them");
            return Err(Error::config("groups", expected, groups));
        }
        Ok(GroupNormArgs { groups, epsilon: EPSILON, silu })
    }

    /// A block from `inputs` channels to `outputs`.
    fn block(&mut self, b: &Builder, inputs: usize, outputs: usize) -> Result<ResidualBlock> {
        let block = ResidualBlock::new(b, self, [inputs, outputs], self.site)?;
        self.site += 1;
        self.channels = outputs;
        Ok(block)
    }

    /// Attention at the present height, where the configuration has it.
    fn attention(&self, b: &Builder) -> Result<Option<AttentionBlock>> {
        let here = self.config.attention.contains(&self.height);
        here.then(|| AttentionBlock::new(b, self)).transpose()
    }
}

/// A block, and the attention behind it.
#[derive(Debug)]
struct Stage {
    block: ResidualBlock,
    attention: Option<AttentionBlock>,
}

impl Stage {
    fn forward(&self, x: &Tensor, embedding: &Tensor, dropout: Option<&BatchNoise>) -> Result<Tensor> {
        let h = self.block.forward(x, embedding, dropout)?;
        match &self.attention {
            Some(attention) => attention.forward(&h),
            None => Ok(h),
        }
    }
}

/// The change to the next level's resolution.
#[derive(Debug)]
enum Resample {
    Conv(Conv2d),
    Pool,
}

impl Resample {
    fn new(b: &Builder, plan: &Plan<'_>, window: Window) -> Result<Self> {
        Ok(match plan.config.resampling {
            Resampling::Pool => Self::Pool,
            Resampling::Conv => Self::Conv(Conv2d::new(b, [plan.channels, plan.channels], 3, window, 1.0)?),
        })
    }

    fn down(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Pool => ops::avg_pool_2x(x),
        }
    }

    fn up(&self, x: &Tensor) -> Result<Tensor> {
        let x = ops::upsample_nearest_2x(x)?;
        match self {
            Self::Conv(conv) => conv.forward(&x),
            Self::Pool => Ok(x),
        }
    }
}

/// The stages of one resolution, and the way to the next.
#[derive(Debug)]
struct Level {
    stages: Vec<Stage>,
    resample: Option<Resample>,
}

/// The path down.
#[derive(Debug)]
pub(super) struct Down(Vec<Level>);

impl Down {
    /// The path, and the channels of every state that it keeps, the input's first.
    pub(super) fn new(b: &Builder, plan: &mut Plan<'_>) -> Result<(Self, Vec<usize>)> {
        let config = plan.config;
        let mut skips = vec![plan.channels];
        let mut levels = Vec::new();
        for (i, multiplier) in config.multipliers.iter().enumerate() {
            let b = b.pp(i);
            let mut stages = Vec::new();
            for j in 0..config.blocks {
                let block = plan.block(&b.pp("block").pp(j), plan.channels, config.channels * multiplier)?;
                stages.push(Stage { block, attention: plan.attention(&b.pp("attention").pp(j))? });
                skips.push(plan.channels);
            }
            let mut resample = None;
            if i + 1 < config.multipliers.len() {
                resample = Some(Resample::new(&b.pp("downsample"), plan, Window::HALVE)?);
                plan.height /= 2;
                skips.push(plan.channels);
            }
            levels.push(Level { stages, resample });
        }
        Ok((Self(levels), skips))
    }

    /// Runs from the only state in `skips`, and pushes every other.
    pub(super) fn forward(
        &self,
        skips: &mut Vec<Tensor>,
        embedding: &Tensor,
        dropout: Option<&BatchNoise>,
    ) -> Result<Tensor> {
        let mut h = skips[0].clone();
        for level in &self.0 {
            for stage in &level.stages {
                h = stage.forward(&h, embedding, dropout)?;
                skips.push(h.clone());
            }
            if let Some(resample) = &level.resample {
                h = resample.down(&h)?;
                skips.push(h.clone());
            }
        }
        Ok(h)
    }
}

/// Block, attention, block at the lowest resolution.
#[derive(Debug)]
pub(super) struct Middle {
    first: ResidualBlock,
    attention: AttentionBlock,
    second: ResidualBlock,
}

impl Middle {
    pub(super) fn new(b: &Builder, plan: &mut Plan<'_>) -> Result<Self> {
        let channels = plan.channels;
        Ok(Self {
            first: plan.block(&b.pp("block").pp(0), channels, channels)?,
            attention: AttentionBlock::new(&b.pp("attention"), plan)?,
            second: plan.block(&b.pp("block").pp(1), channels, channels)?,
        })
    }

    pub(super) fn forward(
        &self,
        x: &Tensor,
        embedding: &Tensor,
        dropout: Option<&BatchNoise>,
    ) -> Result<Tensor> {
        let h = self.first.forward(x, embedding, dropout)?;
        let h = self.attention.forward(&h)?;
        self.second.forward(&h, embedding, dropout)
    }
}

/// The path up.
#[derive(Debug)]
pub(super) struct Up(Vec<Level>);

impl Up {
    /// The path that takes back states of the channels in `skips`, the last first.
    pub(super) fn new(b: &Builder, plan: &mut Plan<'_>, skips: &mut Vec<usize>) -> Result<Self> {
        let config = plan.config;
        let mut levels = Vec::new();
        for (i, multiplier) in config.multipliers.iter().enumerate().rev() {
            let b = b.pp(i);
            let mut stages = Vec::new();
            for j in 0..=config.blocks {
                let inputs = plan.channels + skips.pop().unwrap_or_default();
                let block = plan.block(&b.pp("block").pp(j), inputs, config.channels * multiplier)?;
                let here = config.up_attention == UpAttention::EveryBlock || j == config.blocks;
                let attention = if here { plan.attention(&b.pp("attention").pp(j))? } else { None };
                stages.push(Stage { block, attention });
            }
            let mut resample = None;
            if i > 0 {
                resample = Some(Resample::new(&b.pp("upsample"), plan, Window::same(3))?);
                plan.height *= 2;
            }
            levels.push(Level { stages, resample });
        }
        Ok(Self(levels))
    }

    pub(super) fn forward(
        &self,
        mut h: Tensor,
        skips: &mut Vec<Tensor>,
        embedding: &Tensor,
        dropout: Option<&BatchNoise>,
    ) -> Result<Tensor> {
        for level in &self.0 {
            for stage in &level.stages {
                if let Some(skip) = skips.pop() {
                    h = Tensor::cat(&[h, skip], 1)?;
                }
                h = stage.forward(&h, embedding, dropout)?;
            }
            if let Some(resample) = &level.resample {
                h = resample.up(&h)?;
            }
        }
        Ok(h)
    }
}
