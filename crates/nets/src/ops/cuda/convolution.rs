//! The three operators of a convolution: forward, input gradient, weight gradient.
//!
//! With the feature `cudnn` they are cuDNN's, apart from 1×1 maps; else, and where cuDNN has no algorithm, they are patch
//! matrices and matrix products ([`super::products`]). A 1×1 map is a matrix product as it is. Candle's own backward of a
//! convolution goes through a transposed convolution with one thread to each value, with or without cuDNN.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Shape};

use super::launch::{dtype, for_element, same_type, view};
use super::pointwise::add_bias;
use super::products;
use crate::ops::patches::Geometry;

/// A contiguous argument.
type Argument<'a> = (&'a CudaStorage, &'a Layout);

/// The sizes of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub geometry: Geometry,
    pub batch: usize,
    pub filters: usize,
    /// Height and width of the output.
    pub output: [usize; 2],
}

impl Problem {
    fn new(geometry: &Geometry, batch: usize, filters: usize) -> Result<Self> {
        Ok(Self { geometry: *geometry, batch, filters, output: geometry.output()? })
    }

    /// Positions of the output.
    pub(super) fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Values of a batch of inputs.
    pub(super) fn inputs(&self) -> usize {
        self.batch * self.geometry.sample_len()
    }

    /// Values of a batch of outputs.
    pub(super) fn outputs(&self) -> usize {
        self.batch * self.filters * self.positions()
    }

    /// Values of the weights.
    pub(super) fn weights(&self) -> usize {
        self.filters * self.geometry.taps()
    }

    /// Whether the patch matrix of a sample is the sample itself.
    pub(super) fn is_pointwise(&self) -> bool {
        let Geometry { kernel, stride, padding, .. } = self.geometry;
        kernel == [1, 1] && stride == 1 && padding == [0; 4]
    }
}

/// (x, w, bias) ↦ y.
pub(in crate::ops) fn forward(
    geometry: &Geometry,
    (x, x_layout): Argument<'_>,
    (w, w_layout): Argument<'_>,
    bias: Option<Argument<'_>>,
) -> Result<(CudaStorage, Shape)> {
    let problem = Problem::new(geometry, x_layout.dims()[0], w_layout.dims()[0])?;
    let types: Vec<_> = [Some(x), Some(w), bias.map(|b| b.0)].into_iter().flatten().map(dtype).collect();
    same_type("convolution", &types)?;
    let y = for_element!(x, T => {
        let device = x.device();
        let (images, weights) = (view::<T>(x, x_layout)?, view(w, w_layout)?);
        run(device, &problem, Pass::Forward, [&images, &weights]).and_then(|mut y| {
            if let Some((bias, layout)) = bias {
                add_bias(device, &mut y, &view(bias, layout)?, problem.positions())?;
            }
            Ok(y)
        })
    })?;
    let [height, width] = problem.output;
    Ok((y, Shape::from((problem.batch, problem.filters, height, width))))
}

/// (ȳ, w) ↦ x̄.
pub(in crate::ops) fn input_gradient(
    geometry: &Geometry,
    (grad, grad_layout): Argument<'_>,
    (w, w_layout): Argument<'_>,
) -> Result<(CudaStorage, Shape)> {
    let problem = Problem::new(geometry, grad_layout.dims()[0], grad_layout.dims()[1])?;
    same_type("input gradient of a convolution", &[dtype(grad), dtype(w)])?;
    let x = for_element!(grad, T => {
        let (gradients, weights) = (view::<T>(grad, grad_layout)?, view(w, w_layout)?);
        run(grad.device(), &problem, Pass::InputGradient, [&gradients, &weights])
    })?;
    let Geometry { channels, height, width, .. } = *geometry;
    Ok((x, Shape::from((problem.batch, channels, height, width))))
}

/// (x, ȳ) ↦ w̄.
pub(in crate::ops) fn weight_gradient(
    geometry: &Geometry,
    (x, x_layout): Argument<'_>,
    (grad, grad_layout): Argument<'_>,
) -> Result<(CudaStorage, Shape)> {
    let problem = Problem::new(geometry, grad_layout.dims()[0], grad_layout.dims()[1])?;
    same_type("weight gradient of a convolution", &[dtype(x), dtype(grad)])?;
    let w = for_element!(x, T => {
        let (images, gradients) = (view::<T>(x, x_layout)?, view(grad, grad_layout)?);
        run(x.device(), &problem, Pass::WeightGradient, [&images, &gradients])
    })?;
    let Geometry { channels, kernel: [kh, kw], .. } = *geometry;
    Ok((w, Shape::from((problem.filters, channels, kh, kw))))
}

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
}

/// What the libraries need of a number type.
#[cfg(feature = "cudnn")]
pub(super) use super::cudnn::Number;
#[cfg(not(feature = "cudnn"))]
pub(super) use super::launch::Element as Number;

fn run<T: Number>(
    device: &CudaDevice,
    problem: &Problem,
    pass: Pass,
    arguments: [&CudaView<'_, T>; 2],
) -> Result<CudaSlice<T>> {
    #[cfg(feature = "cudnn")]
    if !problem.is_pointwise()
        && problem.batch > 0
        && let Some(result) = super::cudnn::run(device, problem, pass, arguments)?
    {
        return Ok(result);
    }
    products::run(device, problem, pass, arguments)
}
