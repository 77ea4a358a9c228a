//! The grey part of a colour image: `y = Σ_c x_c / √C` in every pixel, the component along the grey direction. `A Aᵀ = I`.
//!
//! Of a grey image of values v the measurement is `√C v`.

use candle_core::Tensor;
use sde_core::{Error, Result};

use super::{Measurement, weigh_evenly};

/// The grey direction of images with C channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grey {
    /// C.
    pub channels: usize,
}

impl Grey {
    fn scale(self) -> f64 {
        1.0 / (self.channels as f64).sqrt()
    }
}

impl Measurement for Grey {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let found = x.dims().get(1).copied();
        if found != Some(self.channels) {
            return Err(Error::Mismatch {
                what: "images to measure the grey part of",
                expected: format!("{} channels", self.channels),
                found: format!("{:?}", x.dims()),
            });
        }
        Ok((x.sum_keepdim(1)? * self.scale())?)
    }

    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        let copies = vec![y; self.channels];
        Ok((Tensor::cat(&copies, 1)? * self.scale())?)
    }

    fn weigh(&self, y: &Tensor, a: &[f64], b: f64) -> Result<Tensor> {
        weigh_evenly(y, a, b, 1.0)
    }
}
