//! Classifier guidance for any process and any sampler, that of an ordinary differential equation included:
//!
//! `∇ log p̃(u) = ∇ log p(u) + γ ∇ log p(y | u)`, which is `ε̃ = ε − γ Rᵀ ∇ log p(y | u)`.
//!
//! With γ = 1 and exact parts this is the conditional field exactly. Any other γ sharpens (γ > 1) or weakens the condition; p̃ is then not the
//! law of a diffused density, and no sampler draws from `p₀ p(y | x)^γ`.
//!
//! Reference: Dhariwal, Nichol 2021, arXiv 2105.05233, Algorithm 2 and Eq. (14). Differs: Algorithm 1 there shifts the mean of an ancestral
//! step by γ times its variance, which does nothing where the sampler adds no noise; to first order in the step it is the same.

use std::cell::RefCell;

use candle_core::Tensor;
use sde_core::{Converted, Cotangents, Field, LinearSde, Op, Prediction, Result, apply_each};

use super::likelihood::{LogLikelihood, restricted};

/// A field guided by a log-likelihood of noised states; it predicts the noise.
pub struct Guided<'a, F, L> {
    field: F,
    sde: &'a dyn LinearSde,
    likelihood: L,
    scale: f64,
}

impl<'a, F: Field, L: LogLikelihood> Guided<'a, F, L> {
    /// `field`, a field of `sde`, guided by `likelihood` with the scale γ.
    pub fn new(field: F, sde: &'a dyn LinearSde, likelihood: L, scale: f64) -> Self {
        Self { field, sde, likelihood, scale }
    }

    fn noise(&self) -> Converted<'_, &F> {
        Converted::new(&self.field, self.sde, Prediction::Noise)
    }

    /// R at each time.
    fn factors(&self, t: &[f64]) -> Vec<Op> {
        t.iter().map(|&t| self.sde.factor(t)).collect()
    }

    fn shifted(&self, noise: &Tensor, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let gradient = self.likelihood.gradient(x, t)?;
        let transposed: Vec<Op> = self.factors(t).iter().map(|r| r.transpose().scale(-self.scale)).collect();
        Ok((noise + apply_each(&transposed, &gradient)?)?)
    }
}

impl<F: Field, L: LogLikelihood> Field for Guided<'_, F, L> {
    fn prediction(&self) -> Prediction {
        Prediction::Noise
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        // The gradient leaves the tape, so the noise must, too: half a gradient would be wrong without a word.
        let x = x.detach();
        self.shifted(&self.noise().eval(&x, t)?, &x, t)
    }

    fn pull_back(&self, x: &Tensor, t: &[f64], cotangents: &Cotangents<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        let x = x.detach();
        let made = RefCell::new((None, Vec::new()));
        let through = |noise: &Tensor| {
            let value = self.shifted(noise, &x, t)?;
            let vs = cotangents(&value)?;
            made.replace((Some(value), vs.clone()));
            Ok(vs)
        };
        let (noise, products) = self.noise().pull_back(&x, t, &through)?;
        let (value, vs) = made.into_inner();
        let value = value.map_or_else(|| self.shifted(&noise, &x, t), Ok)?;
        let factors = self.factors(t);
        // The Jacobian of −γ Rᵀ ∇ is −γ Rᵀ H, H symmetric.
        let products = vs.iter().zip(products).map(|(v, product)| {
            let curved = self.likelihood.hessian_product(&x, t, &apply_each(&factors, v)?)?;
            Ok((product - curved.affine(self.scale, 0.0)?)?)
        });
        Ok((value, products.collect::<Result<_>>()?))
    }

    fn restrict<'b>(&'b self, samples: &[usize]) -> Result<Option<Box<dyn Field + 'b>>> {
        let parts = restricted(&self.field, &self.likelihood, samples)?;
        Ok(parts.map(|(field, likelihood)| {
            Box::new(Guided::new(field, self.sde, likelihood, self.scale)) as Box<dyn Field + 'b>
        }))
    }
}
