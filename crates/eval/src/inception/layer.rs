//! A convolution with batch normalisation and ReLU, as one convolution.
//!
//! ```text
//! y = max(0, γ (w∗x − μ) / √(v + 10⁻³) + β) = max(0, (s w)∗x + (β − s μ)),    s = γ / √(v + 10⁻³)
//! ```
//!
//! Reference: Ioffe, Szegedy 2015, arXiv 1502.03167, algorithm 2.
//! Differs: s is taken into the kernel in f64 where the weights are read.

use candle_core::{DType, Device, Tensor};
use sde_nets::ops::{Window, conv2d, conv2d_relu};
use sde_nets::{Builder, Init, Weights};

/// What is added to a variance.
const EPSILON: f64 = 1e-3;

/// Where a layer finds its tensors, and where it computes.
#[derive(Clone)]
pub(super) struct Place<'a> {
    builder: Builder,
    /// What the builder takes from: the scale γ of a normalisation may be absent.
    weights: &'a Weights,
    path: String,
    device: &'a Device,
}

impl<'a> Place<'a> {
    pub(super) fn new(builder: &Builder, weights: &'a Weights, device: &'a Device) -> Self {
        Self { builder: builder.clone(), weights, path: String::new(), device }
    }

    /// The place `name` below this one.
    pub(super) fn at(&self, name: &str) -> Self {
        Self { builder: self.builder.pp(name), path: format!("{}{name}.", self.path), ..self.clone() }
    }

    /// Every channel's `name`, in f64.
    fn by_channel(&self, name: &str, channels: usize) -> sde_nets::Result<Vec<f64>> {
        if name == "weight" && self.weights.get(&format!("{}bn.weight", self.path)).is_none() {
            return Ok(vec![1.0; channels]);
        }
        let values = self.builder.pp("bn").get(&[channels], name, Init::Constant(1.0))?;
        Ok(values.to_dtype(DType::F64)?.to_vec1()?)
    }

    /// A tensor of this place where the network computes.
    pub(super) fn get(&self, shape: &[usize], name: &str) -> sde_nets::Result<Tensor> {
        Ok(self.builder.get(shape, name, Init::FanAverage { scale: 2.0 })?.to_device(self.device)?)
    }
}

/// Where a kernel is put.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fit {
    /// At every pixel, under zeros outside of the image.
    Same,
    /// Where it lies inside of the image, at every pixel or at every second.
    Inside(usize),
}

/// A convolution, its normalisation taken in.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    weight: Tensor,
    bias: Tensor,
    window: Window,
}

impl Layer {
    /// From `conv.weight` and `bn.{weight, bias, running_mean, running_var}` at a place.
    pub(super) fn new(
        place: &Place<'_>,
        [inputs, outputs]: [usize; 2],
        [height, width]: [usize; 2],
        fit: Fit,
    ) -> sde_nets::Result<Self> {
        let kernel = place.builder.pp("conv").get(
            &[outputs, inputs, height, width],
            "weight",
            Init::FanAverage { scale: 2.0 },
        )?;
        let [gamma, beta, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(|name| place.by_channel(name, outputs));
        let (gamma, beta, mean) = (gamma?, beta?, mean?);
        let scale: Vec<f64> =
            gamma.iter().zip(variance?).map(|(gamma, v)| gamma / (v + EPSILON).sqrt()).collect();
        let bias: Vec<f64> =
            beta.iter().zip(mean.iter().zip(&scale)).map(|(beta, (mean, s))| beta - s * mean).collect();
        let scale = Tensor::new(scale, &Device::Cpu)?.reshape((outputs, 1, 1, 1))?;
        let ready = |x: Tensor| x.to_dtype(DType::F32)?.to_device(place.device);
        let window = match fit {
            Fit::Same => Window { stride: 1, padding: [height / 2, height / 2, width / 2, width / 2] },
            Fit::Inside(stride) => Window { stride, padding: [0; 4] },
        };
        Ok(Self {
            weight: ready(kernel.to_dtype(DType::F64)?.broadcast_mul(&scale)?)?,
            bias: ready(Tensor::new(bias, &Device::Cpu)?)?,
            window,
        })
    }

    /// y.
    pub(super) fn forward(&self, x: &Tensor) -> sde_nets::Result<Tensor> {
        conv2d_relu(x, &self.weight, Some(&self.bias), self.window)
    }

    /// What the positive part is taken of.
    pub(super) fn linear(&self, x: &Tensor) -> sde_nets::Result<Tensor> {
        conv2d(x, &self.weight, Some(&self.bias), self.window)
    }
}
