//! The paths of the U-Net: down, middle, up.
//!
//! The path down keeps every state: the input, the result of each block, and of each halving. The path up
//! takes them back in reverse order, one a block, so it has one block more a level.
//!
//! A *pyramid* carries the image down besides: filtered by [1, 3, 3, 1] along each axis, convolved with
//! stride 2, and added to the state, whose sum is both the next state and the next image.

use candle_core::Tensor;
use sde_core::noise::BatchNoise;

use super::attention_block::AttentionBlock;
use super::residual_block::{Change, ResidualBlock, sum};
use super::stage::{Stage, Stages};
use super::{Resampling, UnetConfig, UpAttention};
use crate::layers::Conv2d;
use crate::ops::{GroupNormArgs, Window};
use crate::{Builder, Error, Result, ops};

/// The published networks' ε of every normalisation.
const EPSILON: f64 = 1e-6;

/// The window of the pyramid's convolution: the filter before it has made room for it.
const PYRAMID: Window = Window { stride: 2, padding: [0; 4] };

/// Where the construction of the network stands.
pub(super) struct Plan<'a> {
    pub config: &'a UnetConfig,
    /// Channels of the state.
    pub channels: usize,
    /// Channels of the image that the pyramid carries.
    image_channels: usize,
    /// Height of the state.
    height: usize,
    /// Blocks so far: the address of the next one's dropout.
    site: u32,
}

impl<'a> Plan<'a> {
    pub(super) fn new(config: &'a UnetConfig, image_channels: usize, height: usize) -> Self {
        Self { config, channels: config.channels, image_channels, height, site: 0 }
    }

    /// The normalisation of `channels` channels.
    pub(super) fn norm(&self, channels: usize, silu: bool) -> Result<GroupNormArgs> {
        let groups = self.config.groups.unwrap_or((channels / 4).clamp(1, 32));
        if groups == 0 || !channels.is_multiple_of(groups) {
            let expected = format!("a divisor of every number of channels, {channels} among them");
            return Err(Error::config("groups", expected, groups));
        }
        Ok(GroupNormArgs { groups, epsilon: self.config.epsilon.unwrap_or(EPSILON), silu })
    }

    /// A block from some number of channels to another.
    fn block(&mut self, b: &Builder, channels: [usize; 2], change: Change) -> Result<ResidualBlock> {
        let block = ResidualBlock::new(b, self, channels, change, self.site)?;
        self.site += 1;
        self.channels = channels[1];
        Ok(block)
    }

    /// A block, and the attention behind it where `attention` and the configuration have it at this height.
    fn stage(&mut self, b: &Builder, j: usize, channels: [usize; 2], attention: bool) -> Result<Stage> {
        let (block_path, attention_path) = (b.pp("block").pp(j), b.pp("attention").pp(j));
        let block = self.block(&block_path, channels, Change::None)?;
        let here = attention && self.config.attention.contains(&self.height);
        let attention = here.then(|| AttentionBlock::new(&attention_path, self)).transpose()?;
        let parts = Stages::new().block(&block_path, block).attention(&attention_path, attention);
        Ok(parts.stage(self.config.checkpoint))
    }
}

/// The change to the next level's resolution.
#[derive(Debug)]
enum Resample {
    Conv(Conv2d),
    Pool,
    Block(Stage),
}

impl Resample {
    /// From the present height to half of it.
    fn down(b: &Builder, plan: &mut Plan<'_>) -> Result<Self> {
        let change = Change::Down { filtered: plan.config.resampling == Resampling::BlockFir };
        let window = match plan.config.resampling {
            Resampling::ConvCentred => Window { stride: 2, padding: [1; 4] },
            _ => Window::HALVE,
        };
        let resample = Self::new(b, plan, window, change)?;
        plan.height /= 2;
        Ok(resample)
    }

    /// From the present height to its double.
    fn up(b: &Builder, plan: &mut Plan<'_>) -> Result<Self> {
        let change = Change::Up { filtered: plan.config.resampling == Resampling::BlockFir };
        let resample = Self::new(b, plan, Window::same(3), change)?;
        plan.height *= 2;
        Ok(resample)
    }

    fn new(b: &Builder, plan: &mut Plan<'_>, window: Window, change: Change) -> Result<Self> {
        let channels = plan.channels;
        Ok(match plan.config.resampling {
            Resampling::Pool => Self::Pool,
            Resampling::Conv | Resampling::ConvCentred => {
                Self::Conv(Conv2d::new(b, [channels, channels], 3, window, 1.0)?)
            }
            Resampling::BlockPool | Resampling::BlockFir => {
                let block = plan.block(b, [channels, channels], change)?;
                Self::Block(Stages::new().block(b, block).stage(plan.config.checkpoint))
            }
        })
    }

    fn run_down(&self, x: &Tensor, embedding: &Tensor, dropout: Option<&BatchNoise>) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Pool => ops::avg_pool_2x(x),
            Self::Block(stage) => stage.forward(x, None, embedding, dropout),
        }
    }

    fn run_up(&self, x: &Tensor, embedding: &Tensor, dropout: Option<&BatchNoise>) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(&ops::upsample_nearest_2x(x)?),
            Self::Pool => ops::upsample_nearest_2x(x),
            Self::Block(stage) => stage.forward(x, None, embedding, dropout),
        }
    }
}

/// The stages of one resolution, and the way to the next.
#[derive(Debug)]
struct Level {
    stages: Vec<Stage>,
    resample: Option<Resample>,
    /// The image of this resolution to the channels of the next state.
    pyramid: Option<Conv2d>,
}

/// The path down.
#[derive(Debug)]
pub(super) struct Down {
    levels: Vec<Level>,
    rescale: bool,
}

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
                let channels = [plan.channels, config.channels * multiplier];
                stages.push(plan.stage(&b, j, channels, true)?);
                skips.push(plan.channels);
            }
            let (mut resample, mut pyramid) = (None, None);
            if i + 1 < config.multipliers.len() {
                resample = Some(Resample::down(&b.pp("downsample"), plan)?);
                if config.pyramid {
                    let channels = [plan.image_channels, plan.channels];
                    pyramid = Some(Conv2d::new(&b.pp("pyramid"), channels, 3, PYRAMID, 1.0)?);
                    plan.image_channels = plan.channels;
                }
                skips.push(plan.channels);
            }
            levels.push(Level { stages, resample, pyramid });
        }
        Ok((Self { levels, rescale: config.rescale }, skips))
    }

    /// Runs from the only state in `skips`, and pushes every other; `image` is what the pyramid starts from.
    pub(super) fn forward(
        &self,
        image: &Tensor,
        skips: &mut Vec<Tensor>,
        embedding: &Tensor,
        dropout: Option<&BatchNoise>,
    ) -> Result<Tensor> {
        let (mut h, mut image) = (skips[0].clone(), image.clone());
        for level in &self.levels {
            for stage in &level.stages {
                h = stage.forward(&h, None, embedding, dropout)?;
                skips.push(h.clone());
            }
            if let Some(resample) = &level.resample {
                h = resample.run_down(&h, embedding, dropout)?;
                if let Some(pyramid) = &level.pyramid {
                    h = sum(&pyramid.forward(&ops::fir_blur(&image)?)?, &h, self.rescale)?;
                    image = h.clone();
                }
                skips.push(h.clone());
            }
        }
        Ok(h)
    }
}

/// Block, attention, block at the lowest resolution.
pub(super) fn middle(b: &Builder, plan: &mut Plan<'_>) -> Result<Stage> {
    let (channels, attention) = ([plan.channels; 2], b.pp("attention"));
    let [first, second] = [0, 1].map(|j| b.pp("block").pp(j));
    let parts = Stages::new()
        .block(&first, plan.block(&first, channels, Change::None)?)
        .attention(&attention, Some(AttentionBlock::new(&attention, plan)?))
        .block(&second, plan.block(&second, channels, Change::None)?);
    Ok(parts.stage(plan.config.checkpoint))
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
                let here = config.up_attention == UpAttention::EveryBlock || j == config.blocks;
                stages.push(plan.stage(&b, j, [inputs, config.channels * multiplier], here)?);
            }
            let up = b.pp("upsample");
            let resample = (i > 0).then(|| Resample::up(&up, plan)).transpose()?;
            levels.push(Level { stages, resample, pyramid: None });
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
                h = stage.forward(&h, skips.pop().as_ref(), embedding, dropout)?;
            }
            if let Some(resample) = &level.resample {
                h = resample.run_up(&h, embedding, dropout)?;
            }
        }
        Ok(h)
    }
}
