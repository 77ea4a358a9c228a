//! The score of Gaussian data, `s(x) = −W (x − m)`, W symmetric, as a network of no parameters.

use candle_core::{Device, Tensor};
use nalgebra::{DMatrix, DVector};
use sde_core::{Model, Pass, Prediction};

pub fn host(values: &[f64], dims: &[usize]) -> Tensor {
    Tensor::from_slice(values, dims, &Device::Cpu).expect("a tensor")
}

pub struct Linear {
    pub w: DMatrix<f64>,
    pub m: DVector<f64>,
}

impl Model for Linear {
    fn prediction(&self) -> Prediction {
        Prediction::Score
    }
    fn forward(&self, x: &Tensor, _t: &Tensor, _pass: Pass<'_>) -> sde_core::Result<Tensor> {
        let dim = self.m.len();
        let w = host(self.w.as_slice(), &[dim, dim]);
        Ok(x.broadcast_sub(&host(self.m.as_slice(), &[1, dim]))?.matmul(&w)?.neg()?)
    }
}
