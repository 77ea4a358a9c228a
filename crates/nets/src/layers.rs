//! The layers with parameters: linear map, convolution, group normalisation.

use candle_core::Tensor;

use crate::ops::{self, GroupNormArgs, Products, Window};
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
    products: Products,
}

impl Linear {
    /// Weights with the fan-average law at `scale`, biases zero.
    pub(crate) fn new(b: &Builder, inputs: usize, outputs: usize, scale: f64) -> Result<Self> {
        let weight = b.get(&[outputs, inputs], "weight", Init::FanAverage { scale })?;
        let bias = b.get(&[outputs], "bias", Init::Constant(0.0))?;
        Ok(Self { weight, bias, products: b.products() })
    }

    /// `[B, inputs]` to `[B, outputs]`. A row's result does not depend on the other rows, nor on their number.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.products.linear(x, &self.weight, &self.bias)
    }

    /// The map of √n times the unit vector of each label, n the number of inputs; the label n, and no label, is the
    /// zero vector. `[B]` to `[B, outputs]`, or `[1, outputs]` for no labels.
    pub(crate) fn of_units(&self, labels: Option<&Tensor>) -> Result<Tensor> {
        let (outputs, inputs) = self.weight.dims2()?;
        let bias = self.bias.unsqueeze(0)?;
        let Some(labels) = labels else { return Ok(bias) };
        let none = Tensor::zeros((1, outputs), self.weight.dtype(), self.weight.device())?;
        let rows = Tensor::cat(&[(self.weight.t()? * (inputs as f64).sqrt())?, none], 0)?;
        Ok(rows.index_select(labels, 0)?.broadcast_add(&bias)?)
    }
}

/// `x w`, each row bit for bit the same however many rows there are: a sampler amplifies rounding, and sample k must not
/// depend on its batch.
pub(crate) fn matmul_by_rows(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    ops::linear(x, &w.t()?, &Tensor::zeros(w.dim(1)?, w.dtype(), w.device())?)
}

/// A square convolution with bias.
#[derive(Debug)]
pub(crate) struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    window: Window,
    products: Products,
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
        let bias = b.get(&[outputs], "bias", Init::Constant(0.0))?;
        Ok(Self { weight, bias, window, products: b.products() })
    }

    /// `[B, inputs, H, W]` to `[B, outputs, H', W']`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.products.conv2d(x, &self.weight, Some(&self.bias), self.window)
    }

    /// The same, with `shift` `[B, outputs]` added to the bias of each sample.
    pub(crate) fn forward_shifted(&self, x: &Tensor, shift: &Tensor) -> Result<Tensor> {
        self.products.conv2d(x, &self.weight, Some(&shift.broadcast_add(&self.bias)?), self.window)
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

    /// Its number of channels, and how it is computed.
    pub(crate) fn shape(&self) -> (usize, GroupNormArgs) {
        (self.weight.elem_count(), self.args)
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::group_norm(x, &self.weight, &self.bias, self.args)
    }
}
