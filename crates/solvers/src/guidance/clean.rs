//! Guidance by a log-likelihood of clean data, through the field's own estimate of it:
//!
//! `ε̃ = ε − γ Rᵀ (∂x̂₀/∂u)ᵀ ∇ log p(y | x̂₀)`, `x̂₀(u) = E[x₀ | u]`.
//!
//! One evaluation of the field and one vector–Jacobian product ([`Field::pull_back`]). It takes `p(y | u) ≈ p(y | x̂₀(u))`, which is exact where the
//! log-likelihood is linear; a likelihood that widens with the time makes up for the spread of x₀ about x̂₀
//! ([`Reconstruction`](crate::inverse::Reconstruction)).
//!
//! Reference: Chung et al. 2022, arXiv 2209.14687, section 3; Bansal et al. 2023, arXiv 2302.07121, section 3.

use std::cell::RefCell;

use candle_core::Tensor;
use sde_core::{Conversion, Cotangents, Error, Field, LinearSde, Op, Prediction, Result, apply_each};

use super::likelihood::{LogLikelihood, restricted};

/// A field guided by a log-likelihood of clean data; it predicts the noise.
///
/// The likelihood is given x̂₀ and the time of the state.
pub struct CleanGuided<'a, F, L> {
    field: F,
    sde: &'a dyn LinearSde,
    likelihood: L,
    scale: f64,
}

/// State and value operators of a conversion at each time.
struct Maps(Vec<Op>, Vec<Op>);

impl Maps {
    fn apply(&self, x: &Tensor, value: &Tensor) -> Result<Tensor> {
        Ok((apply_each(&self.0, x)? + apply_each(&self.1, value)?)?)
    }
}

fn transposed(ops: &[Op], scale: f64) -> Vec<Op> {
    ops.iter().map(|op| op.transpose().scale(scale)).collect()
}

impl<'a, F: Field, L: LogLikelihood> CleanGuided<'a, F, L> {
    /// `field`, a field of `sde`, guided by `likelihood` with the scale γ.
    pub fn new(field: F, sde: &'a dyn LinearSde, likelihood: L, scale: f64) -> Self {
        Self { field, sde, likelihood, scale }
    }

    fn maps(&self, to: Prediction, t: &[f64]) -> Result<Maps> {
        let maps = t.iter().map(|&t| self.field.prediction().conversion(to, self.sde, t));
        let maps = maps.collect::<Result<Vec<Conversion>>>()?;
        let (state, value) = maps.into_iter().map(|map| (map.state, map.value)).unzip();
        Ok(Maps(state, value))
    }
}

impl<F: Field, L: LogLikelihood> Field for CleanGuided<'_, F, L> {
    fn prediction(&self) -> Prediction {
        Prediction::Noise
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let x = x.detach();
        let (data, noise) = (self.maps(Prediction::Data, t)?, self.maps(Prediction::Noise, t)?);
        let wanted = RefCell::new(None);
        let through = |value: &Tensor| {
            let gradient = self.likelihood.gradient(&data.apply(&x, value)?, t)?;
            let cotangent = apply_each(&transposed(&data.1, 1.0), &gradient)?;
            wanted.replace(Some(gradient));
            Ok(vec![cotangent])
        };
        let (value, products) = self.field.pull_back(&x, t, &through)?;
        let (Some(gradient), [product]) = (wanted.into_inner(), products.as_slice()) else {
            return Err(Error::NoGradient {
                hint: "`pull_back` of the field must return one product a cotangent",
            });
        };
        let gradient = (apply_each(&transposed(&data.0, 1.0), &gradient)? + product)?;
        let factors: Vec<Op> = t.iter().map(|&t| self.sde.factor(t)).collect();
        Ok((noise.apply(&x, &value)? + apply_each(&transposed(&factors, -self.scale), &gradient)?)?)
    }

    fn pull_back(&self, _: &Tensor, _: &[f64], _: &Cotangents<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        Err(Error::NoGradient {
            hint: "guidance through the denoiser has second derivatives of the network, which are not on the tape; guide the innermost field, or sample only",
        })
    }

    fn restrict<'b>(&'b self, samples: &[usize]) -> Result<Option<Box<dyn Field + 'b>>> {
        let parts = restricted(&self.field, &self.likelihood, samples)?;
        Ok(parts.map(|(field, likelihood)| {
            Box::new(CleanGuided::new(field, self.sde, likelihood, self.scale)) as Box<dyn Field + 'b>
        }))
    }
}
