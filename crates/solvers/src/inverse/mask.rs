//! Some entries of the state, the others zero: `A x = m ⊙ x`. On what it returns, `A Aᵀ = I`.

use candle_core::{DType, Tensor};
use sde_core::{Error, Result};

use super::{Measurement, weigh_evenly};

/// The entries that are known.
#[derive(Debug, Clone)]
pub struct Mask(Tensor);

impl Mask {
    /// The mask of one state: 1 where an entry is known, 0 where it is not.
    ///
    /// # Shapes
    /// `known` has the shape of one state, or one that is broadcast to it, such as `[1, H, W]`.
    ///
    /// # Errors
    /// For any other number than 0 and 1.
    pub fn new(known: &Tensor) -> Result<Self> {
        let values = known.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        if let Some(other) = values.iter().find(|v| **v != 0.0 && **v != 1.0) {
            return Err(Error::Mismatch {
                what: "mask",
                expected: "1 for a known entry, 0 for an unknown one".into(),
                found: other.to_string(),
            });
        }
        Ok(Self(known.to_dtype(DType::U8)?.contiguous()?))
    }

    /// `a` where entries are known, `b` elsewhere: chosen, not computed, so every bit stays.
    fn choose(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let mask = self.0.to_device(b.device())?.broadcast_as(b.dims()).map_err(|_| Error::Mismatch {
            what: "mask",
            expected: format!("the shape of one state, {:?}, or one that is broadcast to it", &b.dims()[1..]),
            found: format!("{:?}", self.0.dims()),
        })?;
        Ok(mask.contiguous()?.where_cond(&a.broadcast_as(b.dims())?.contiguous()?, &b.contiguous()?)?)
    }
}

impl Measurement for Mask {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.choose(x, &x.zeros_like()?)
    }

    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.apply(y)
    }

    fn weigh(&self, y: &Tensor, a: &[f64], b: f64) -> Result<Tensor> {
        weigh_evenly(y, a, b, 1.0)
    }

    fn project(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.choose(y, x)
    }
}
