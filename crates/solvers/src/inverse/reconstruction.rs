//! The likelihood of a measurement given an estimate of the data: what guides by reconstruction.
//!
//! `log p(y | x̂₀, t) = −½ (y − A x̂₀)ᵀ (r_t² A Aᵀ + s² I)⁻¹ (y − A x̂₀)`, s the measurement's own noise and r_t the spread of x₀ about x̂₀:
//!
//! ```text
//! OfData    r² = v σ² / (α² v + σ²)     exact for data N(m, v I): the guided field is then the conditional one
//! OfNoise   r² = σ² / (w α²)            w the guidance weight of Ho et al.
//! None      r² = 0                      needs s > 0
//! ```
//!
//! For [`CleanGuided`](crate::guidance::CleanGuided), with γ = 1 unless more is wanted than the measurement says.
//!
//! Reference: Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems" (ICLR 2023), section 3, for `OfData` (v = 1 there);
//! Ho et al. 2022, arXiv 2204.03458, section 3.1, for `OfNoise`; Chung et al. 2022, arXiv 2209.14687, for `None`. Differs: the latter two have
//! the identity for A Aᵀ, and the last divides the gradient by the norm of what is missing, and adds it outside the sampler's step.

use candle_core::Tensor;
use sde_core::{Error, LinearSde, Result, rows_of};

use super::Measurement;
use crate::guidance::LogLikelihood;

/// How far x₀ is taken to lie from x̂₀.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spread {
    /// As for Gaussian data of this variance.
    OfData {
        /// v.
        variance: f64,
    },
    /// In proportion to the noise-to-signal ratio.
    OfNoise {
        /// w; the larger, the stronger.
        weight: f64,
    },
    /// Not at all.
    None,
}

/// The log-likelihood of a measurement.
pub struct Reconstruction<'a, A> {
    measurement: A,
    y: Tensor,
    sde: &'a dyn LinearSde,
    spread: Spread,
    noise: f64,
}

impl<'a, A: Measurement> Reconstruction<'a, A> {
    /// The likelihood of `y`, measured with noise of standard deviation `noise`, for states of `sde`.
    ///
    /// # Shapes
    /// `y` as `measurement` makes it, `[B, …]`, or `[1, …]` for all samples.
    pub fn new(measurement: A, y: Tensor, sde: &'a dyn LinearSde, spread: Spread, noise: f64) -> Self {
        Self { measurement, y, sde, spread, noise }
    }

    /// r² at each time.
    fn variances(&self, t: &[f64]) -> Result<Vec<f64>> {
        if self.spread == Spread::None {
            return Ok(vec![0.0; t.len()]);
        }
        let at = |&t: &f64| match (self.sde.signal(t).as_scalar(), self.sde.covariance(t).as_scalar()) {
            (Some(alpha), Some(square)) => Ok(match self.spread {
                Spread::OfData { variance } => variance * square / (alpha * alpha * variance + square),
                Spread::OfNoise { weight } => square / (weight * alpha * alpha),
                Spread::None => 0.0,
            }),
            _ => Err(Error::Mismatch {
                what: "likelihood of a measurement",
                expected: "a process that treats all coordinates alike".into(),
                found: "one that does not, for which there is Spread::None".into(),
            }),
        };
        t.iter().map(at).collect()
    }

    fn missing(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.y.to_dtype(x.dtype())?.broadcast_sub(&self.measurement.apply(x)?)?)
    }

    fn weighed(&self, deviation: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.measurement.weigh(deviation, &self.variances(t)?, self.noise * self.noise)
    }
}

impl<A: Measurement> LogLikelihood for Reconstruction<'_, A> {
    fn log_likelihood(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let missing = self.missing(x)?;
        Ok(((&missing * self.weighed(&missing, t)?)?.flatten_from(1)?.sum(1)? * -0.5)?)
    }

    fn gradient(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        self.measurement.adjoint(&self.weighed(&self.missing(x)?, t)?)
    }

    fn hessian_product(&self, _: &Tensor, t: &[f64], v: &Tensor) -> Result<Tensor> {
        Ok(self.measurement.adjoint(&self.weighed(&self.measurement.apply(v)?, t)?)?.neg()?)
    }

    fn restrict<'b>(&'b self, samples: &[usize]) -> Result<Option<Box<dyn LogLikelihood + 'b>>> {
        if self.y.dim(0)? == 1 {
            return Ok(None);
        }
        let (y, measurement): (_, &dyn Measurement) = (rows_of(&self.y, samples)?, &self.measurement);
        Ok(Some(Box::new(Reconstruction::new(measurement, y, self.sde, self.spread, self.noise))))
    }
}
