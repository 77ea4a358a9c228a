//! Backwards along a diffusion whose noise depends on the state, given its score: the probability flow as a field, and the λ-family by Euler–Maruyama.
//!
//! `v = ḃ [−½ Q(x) (m x + s) − m ω x + ∇·ω]`: the divergences of Q cancel, so the flow, and with it likelihoods, need none. For any λ ≥ 0, with equal marginals,
//!
//! `dx = ḃ [−(m/2) Q x − m ω x + ∇·ω − (λ²/2) ∇·Q − ((1 + λ²)/2) Q s] dt + λ √ḃ L dw̄`.
//!
//! [`StateVelocity`] predicts the velocity, so adaptive flows and likelihoods take it as they take any field of the VP process with the same clock.
//!
//! Reference: Du, Zhang, Yang, Du 2023, arXiv 2206.10365, Eq. (20); Huang, Lim, Courville 2021, arXiv 2106.02808, for the reverse of a general Q(x).
//! Differs: Eq. (4) and (13) of the former leave out ∇·(G Gᵀ).

use std::cell::RefCell;

use candle_core::{DType, Tensor};
use sde_core::noise::{NormalSource, host_tensor};
use sde_core::{
    Cotangents, Error as CoreError, Field, Prediction, StateSde, TimeGrid, per_sample, reverse_mode,
};

use crate::error::in_range;
use crate::{Error, Result, Solution};

/// The velocity of the probability flow, from a field that predicts the score.
pub struct StateVelocity<'a, F> {
    sde: &'a StateSde,
    score: F,
}

impl<'a, F: Field> StateVelocity<'a, F> {
    /// The flow of `sde` with the score of `score`.
    ///
    /// # Errors
    /// When the field predicts anything else ([`sde_core::Converted`] makes a score of it, by the VP process [`StateSde::vp`]).
    pub fn new(sde: &'a StateSde, score: F) -> Result<Self> {
        is_score(&score)?;
        Ok(Self { sde, score })
    }

    /// `ḃ` of each sample, as a column.
    fn rates(&self, x: &Tensor, t: &[f64]) -> sde_core::Result<Tensor> {
        let rates: Vec<f64> = per_sample(t, x.dim(0)?)?.iter().map(|&t| self.sde.vp().beta(t)).collect();
        let mut dims = vec![1; x.rank()];
        dims[0] = rates.len();
        host_tensor(rates, &dims, x.dtype(), x.device())
    }

    /// The velocity per unit of b, where `pull = m x + s` is held fast.
    fn explicit(&self, x: &Tensor, pull: &Tensor) -> sde_core::Result<Tensor> {
        let pulled = (self.sde.diffuse(x, pull)? * -0.5)?;
        match self.sde.turn(x)? {
            Some(turn) => Ok((pulled + turn)?),
            None => Ok(pulled),
        }
    }
}

fn is_score(field: &impl Field) -> Result<()> {
    match field.prediction() {
        Prediction::Score => Ok(()),
        other => Err(CoreError::Mismatch {
            what: "field of a process whose noise depends on the state",
            expected: "a prediction of the score (`Converted::new(field, sde.vp(), Prediction::Score)`)"
                .into(),
            found: format!("{other:?}"),
        }
        .into()),
    }
}

impl<F: Field> Field for StateVelocity<'_, F> {
    fn prediction(&self) -> Prediction {
        Prediction::Velocity
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> sde_core::Result<Tensor> {
        let pull = ((x * self.sde.precision())? + self.score.eval(x, t)?)?;
        Ok(self.explicit(x, &pull)?.broadcast_mul(&self.rates(x, t)?)?)
    }

    /// Through the score by its own products, through Q(x) and ω(x) on the tape.
    fn pull_back(
        &self,
        x: &Tensor,
        t: &[f64],
        cotangents: &Cotangents<'_>,
    ) -> sde_core::Result<(Tensor, Vec<Tensor>)> {
        let (m, rates) = (self.sde.precision(), self.rates(x, t)?);
        // What the closure makes on its way through the score.
        let made = RefCell::new((Vec::new(), Vec::new()));
        let through = |score: &Tensor| {
            let pull = ((x * m)? + score)?;
            // A matrix that does not depend on the state leaves nothing on the tape; this does.
            let on_tape =
                |x: &Tensor| Ok((self.explicit(x, &pull)? + x.affine(0.0, 0.0)?)?.broadcast_mul(&rates)?);
            let asked = RefCell::new(Vec::new());
            let keep = |value: &Tensor| {
                let vs = cotangents(value)?;
                asked.replace(vs.clone());
                Ok(vs)
            };
            let (_, direct) = reverse_mode(on_tape, x, &keep)?;
            // Qᵀ = Q
            let halves = asked
                .into_inner()
                .into_iter()
                .map(|v| Ok((self.sde.diffuse(x, &v.broadcast_mul(&rates)?)? * -0.5)?));
            let halves: Vec<Tensor> = halves.collect::<sde_core::Result<_>>()?;
            made.replace((direct, halves.clone()));
            Ok(halves)
        };
        let (score, products) = self.score.pull_back(x, t, &through)?;
        let (direct, halves) = made.into_inner();
        let pull = ((x * m)? + score)?;
        let value = self.explicit(x, &pull)?.broadcast_mul(&rates)?;
        let sums = products.into_iter().zip(direct).zip(halves);
        let sums = sums.map(|((product, direct), half)| Ok(((product + direct)? + (half * m)?)?));
        Ok((value, sums.collect::<sde_core::Result<_>>()?))
    }

    fn restrict<'b>(&'b self, samples: &[usize]) -> sde_core::Result<Option<Box<dyn Field + 'b>>> {
        let inner = self.score.restrict(samples)?;
        Ok(inner.map(|score| Box::new(StateVelocity { sde: self.sde, score }) as Box<dyn Field + 'b>))
    }
}

/// Euler–Maruyama backwards, in steps of b.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StateEulerMaruyama {
    /// 0: the probability flow; 1: the reverse SDE.
    pub lambda: f64,
}

impl StateEulerMaruyama {
    /// Carries `x` down the grid, with the score of `score`.
    ///
    /// # Shapes
    /// `x` `[B, …]`; the solution's state has its shape.
    ///
    /// # Errors
    /// For a λ that is negative or above 100, a field that predicts no score, [`Error::NonFinite`], and whatever the field returns.
    pub fn sample(
        &self,
        sde: &StateSde,
        score: &dyn Field,
        grid: &TimeGrid,
        x: &Tensor,
        noise: &dyn NormalSource,
    ) -> Result<Solution> {
        in_range("lambda", self.lambda, 0.0, 100.0)?;
        is_score(&score)?;
        let square = self.lambda * self.lambda;
        let shape = sde.diffusion().noise_shape(&x.dims()[1..]);
        let like = Tensor::zeros([&[x.dim(0)?], shape.as_slice()].concat(), x.dtype(), x.device())?;
        let mut x = x.clone();
        for (k, pair) in grid.times().windows(2).enumerate() {
            let step = sde.vp().integral(pair[0]) - sde.vp().integral(pair[1]);
            let pull = ((&x * sde.precision())? + (score.eval(&x, &[pair[0]])? * (1.0 + square))?)?;
            let mut back = (sde.diffuse(&x, &pull)? * 0.5)?;
            if let Some(turn) = sde.turn(&x)? {
                back = (back - turn)?;
            }
            let mut next = (&x + (&back * step)?)?;
            if self.lambda > 0.0 {
                if let Some(divergence) = sde.diffusion().divergence(&x)? {
                    next = (next + (divergence * (0.5 * square * step))?)?;
                }
                let z = noise.normal(k, &like)?;
                next = (next + (sde.diffusion().root(&x, &z)? * (self.lambda * step.sqrt()))?)?;
            }
            let largest = next.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            let sum = next.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
            // A maximum passes over what is not a number; a sum does not.
            if !(largest.is_finite() && sum.is_finite()) {
                return Err(Error::NonFinite { step: k, t: pair[1] });
            }
            x = next.detach();
        }
        let nfe = vec![grid.steps(); x.dim(0)?];
        Ok(Solution { x, nfe })
    }
}
