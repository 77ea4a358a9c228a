//! The layers with parameters: linear map, convolution, group normalisation.

use candle_core::Tensor;

use crate::ops::{self, GroupNormArgs, Window};
use crate::{Builder, Init, Result};

/// The scale of the initial weights of a layer that starts as nothing: zero but for rounding, so that every
/// parameter before it receives a gradient from the first step.
///
/// Reference: Song et al. 2021, arXiv 2011.13456, whose published networks use this number for a scale of
/// zero.
pub(crate) const NOTHING: f64 = 1e-10;

/// `y = x Wᵀ + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Weights with the fan-average law at `scale`, biases zero.
    pub(crate) fn new(b: &Builder, inputs: usize, outputs: usize, scale: f64) -> Result<Self> {
        let weight = b.get(&[outputs, inputs], "weight", Init::FanAverage { scale })?;
        Ok(Self { weight, bias: b.get(&[outputs], "bias", Init::Constant(0.0))? })
    }

    /// `[B, inputs]` to `[B, outputs]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
    }
}

/// A square convolution with bias.
#[derive(Debug)]
pub(crate) struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    window: Window,
}

impl Conv2d {
    /// Weights with the fan-average law at `scale`, biases zero.
    pub(crate) fn new(
        b: &Builder,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        window: Window,
        scale: f64,
    ) -> Result<Self> {
        let weight = b.get(&[outputs, inputs, kernel, kernel], "weight", Init::FanAverage { scale })?;
        Ok(Self { weight, bias: b.get(&[outputs], "bias", Init::Constant(0.0))?, window })
    }

    /// `[B, inputs, H, W]` to `[B, outputs, H', W']`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::conv2d(x, &self.weight, Some(&self.bias), self.window)
    }

    /// The same, with `shift` `[B, outputs]` added to the bias of each sample.
    pub(crate) fn forward_shifted(&self, x: &Tensor, shift: &Tensor) -> Result<Tensor> {
        ops::conv2d(x, &self.weight, Some(&shift.broadcast_add(&self.bias)?), self.window)
    }
}

/// Group normalisation with scale and shift by channel, which start at one and zero.
#[derive(Debug)]
pub(crate) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    args: GroupNormArgs,
}

impl GroupNorm {
    pub(crate) fn new(b: &Builder, channels: usize, args: GroupNormArgs) -> Result<Self> {
        let weight = b.get(&[channels], "weight", Init::Constant(1.0))?;
        Ok(Self { weight, bias: b.get(&[channels], "bias", Init::Constant(0.0))?, args })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::group_norm(x, &self.weight, &self.bias, self.args)
    }
}
