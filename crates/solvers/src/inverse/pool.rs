//! An image of which only the means of k×k squares are known: super-resolution. `A Aᵀ = I / k²`.

use candle_core::Tensor;
use sde_core::{Error, Result};

use super::{Measurement, weigh_evenly};

/// Means of k×k squares, `[B, C, H, W]` to `[B, C, H/k, W/k]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// k.
    pub side: usize,
}

impl Measurement for Pool {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let k = self.side;
        let refused = || Error::Mismatch {
            what: "images to take means of squares of",
            expected: format!("[B, C, H, W] with H and W multiples of {k}"),
            found: format!("{:?}", x.dims()),
        };
        let (b, c, h, w) = x.dims4().map_err(|_| refused())?;
        if k == 0 || h % k != 0 || w % k != 0 {
            return Err(refused());
        }
        Ok(x.contiguous()?.reshape(vec![b, c, h / k, k, w / k, k])?.mean(5)?.mean(3)?)
    }

    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        let (k, (b, c, h, w)) = (self.side, y.dims4()?);
        let spread = y.contiguous()?.reshape(vec![b, c, h, 1, w, 1])?.broadcast_as(vec![b, c, h, k, w, k])?;
        Ok((spread.contiguous()?.reshape((b, c, h * k, w * k))? * (1.0 / (k * k) as f64))?)
    }

    fn weigh(&self, y: &Tensor, a: &[f64], b: f64) -> Result<Tensor> {
        weigh_evenly(y, a, b, 1.0 / (self.side * self.side) as f64)
    }
}
