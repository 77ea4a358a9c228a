//! A diffusion with a learned drift and a learned score: sampled backwards and forwards by Euler–Maruyama, completed, and seen as a flow.
//!
//! With f the drift, s the score and g(t) the strength of the noise, data at the start of time,
//!
//! ```text
//! forward     x_k = x_{k−1} + f(x_{k−1}, t_{k−1}) Δ_k + g_{k−1} √Δ_k ξ_k
//! backward    x_{k−1} = x_k − [f − ((1 + λ²)/2) g_k² s](x_k, t_k) Δ_k + λ g_k √Δ_k η_k,  the last step without noise
//! flow        dx/dt = f − ½ g² s                                                          (λ = 0)
//! ```
//!
//! λ = 1 is the backward process that DiffFlow is trained with; all λ have the same marginals where s is the score of the forward process.
//! A sample is completed by keeping, at every time, what its own forward trajectory has where it is known:
//! `x̂_{k−1} = (1 − Γ) x̄_{k−1} + Γ x_{k−1}`, x̄ the backward step from x̂_k.
//!
//! Reference: Zhang, Chen 2021, arXiv 2110.07579, Eq. (8)–(12), sections 3.4 and G.2.
//! Differs: the completion starts at `x̂_N = (1 − Γ) z + Γ x_N`, z ~ N(0, I), which the paper leaves open.

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{NormalSource, host_tensor};
use sde_core::{Error as CoreError, Field, Model, NoiseRate, Pass, Prediction, TimeGrid, per_sample};

use crate::error::in_range;
use crate::{Error, Result, Solution};

/// The drift, the score and the noise of a diffusion.
#[derive(Debug, Clone, Copy)]
pub struct DriftAndScore<D, S> {
    drift: D,
    score: S,
    noise: NoiseRate,
}

impl<D, S> DriftAndScore<D, S> {
    /// g(t).
    pub fn noise(&self) -> NoiseRate {
        self.noise
    }

    fn checked(drift: (D, Prediction), score: (S, Prediction), noise: NoiseRate) -> Result<Self> {
        for (what, found, expected) in [
            ("drift of a diffusion", drift.1, Prediction::Velocity),
            ("score of a diffusion", score.1, Prediction::Score),
        ] {
            if found != expected {
                let (expected, found) =
                    (format!("a prediction of {expected:?}"), format!("one of {found:?}"));
                return Err(CoreError::Mismatch { what, expected, found }.into());
            }
        }
        Ok(Self { drift: drift.0, score: score.0, noise })
    }
}

impl<D: Model, S: Model> DriftAndScore<D, S> {
    /// The same of networks, of which one, `f − ½ g² s`, is made: a model of the flow's velocity.
    ///
    /// # Errors
    /// As [`DriftAndScore::new`].
    pub fn of_models(drift: D, score: S, noise: NoiseRate) -> Result<Self> {
        let (of_drift, of_score) = (drift.prediction(), score.prediction());
        Self::checked((drift, of_drift), (score, of_score), noise)
    }
}

impl<D: Model, S: Model> Model for DriftAndScore<D, S> {
    fn prediction(&self) -> Prediction {
        Prediction::Velocity
    }

    fn forward(&self, x: &Tensor, t: &Tensor, pass: Pass<'_>) -> sde_core::Result<Tensor> {
        let times = t.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.to_vec1::<f64>()?;
        let halves = self.half_squares(&times, x)?;
        Ok((self.drift.forward(x, t, pass)? - self.score.forward(x, t, pass)?.broadcast_mul(&halves)?)?)
    }
}

impl<D, S> DriftAndScore<D, S> {
    /// ½ g² at the time of each sample, as a column.
    fn half_squares(&self, t: &[f64], x: &Tensor) -> sde_core::Result<Tensor> {
        let half = |t: &f64| 0.5 * self.noise.at(*t) * self.noise.at(*t);
        let halves: Vec<f64> = per_sample(t, x.dim(0)?)?.iter().map(half).collect();
        let mut dims = vec![1; x.rank()];
        dims[0] = halves.len();
        host_tensor(halves, &dims, x.dtype(), x.device())
    }
}

impl<D: Field, S: Field> DriftAndScore<D, S> {
    /// The diffusion `dx = f dt + g dw` with `drift` f, whose prediction is a velocity, and `score` s.
    ///
    /// # Errors
    /// For fields that predict anything else.
    pub fn new(drift: D, score: S, noise: NoiseRate) -> Result<Self> {
        let (of_drift, of_score) = (drift.prediction(), score.prediction());
        Self::checked((drift, of_drift), (score, of_score), noise)
    }

    /// Carries `x` from data to noise through the times of `grid`, the last of which is the data's; all N + 1 states, data first. Step k = 1…N
    /// has the noise of step N + k − 1 of `noise`, so that the way back draws others.
    ///
    /// # Shapes
    /// `x` and every state `[B, …]`.
    ///
    /// # Errors
    /// [`Error::NonFinite`], and whatever the drift returns.
    pub fn forward(&self, grid: &TimeGrid, x: &Tensor, noise: &dyn NormalSource) -> Result<Vec<Tensor>> {
        let times: Vec<f64> = grid.times().iter().rev().copied().collect();
        let mut states = vec![x.clone()];
        for (k, pair) in times.windows(2).enumerate() {
            let (x, step) = (&states[k], pair[1] - pair[0]);
            let z = noise.normal(grid.steps() + k, x)?;
            let moved = (x + (self.drift.eval(x, &[pair[0]])? * step)?)?;
            let next = (moved + (z * (self.noise.at(pair[0]) * step.sqrt()))?)?;
            states.push(checked(next.detach(), k, pair[1])?);
        }
        Ok(states)
    }

    /// Carries `x` from noise to data; all N + 1 states, noise first.
    ///
    /// # Shapes
    /// `x` and every state `[B, …]`.
    ///
    /// # Errors
    /// For a λ that is negative or above 100, [`Error::NonFinite`], and whatever the fields return.
    pub fn backward(
        &self,
        grid: &TimeGrid,
        lambda: f64,
        x: &Tensor,
        noise: &dyn NormalSource,
    ) -> Result<Vec<Tensor>> {
        self.walk(grid, lambda, x, noise, |_, x| Ok(x))
    }

    /// The end of [`DriftAndScore::backward`].
    ///
    /// # Shapes
    /// That of `x`, `[B, …]`.
    ///
    /// # Errors
    /// As [`DriftAndScore::backward`].
    pub fn sample(
        &self,
        grid: &TimeGrid,
        lambda: f64,
        x: &Tensor,
        noise: &dyn NormalSource,
    ) -> Result<Solution> {
        let states = self.backward(grid, lambda, x, noise)?;
        let nfe = vec![grid.steps(); x.dim(0)?];
        Ok(Solution { x: last(states)?, nfe })
    }

    /// Fills in what is not known of `known`: `mask` Γ is 1 where it is, 0 where it is not; `prior` is what a sampler would start from.
    ///
    /// # Shapes
    /// `known` and `prior` `[B, …]`, `mask` of a shape that broadcasts to it; the result has theirs.
    ///
    /// # Errors
    /// As [`DriftAndScore::forward`] and [`DriftAndScore::backward`].
    pub fn complete(
        &self,
        grid: &TimeGrid,
        lambda: f64,
        (known, mask): (&Tensor, &Tensor),
        prior: &Tensor,
        noise: &dyn NormalSource,
    ) -> Result<Tensor> {
        let path = self.forward(grid, known, noise)?;
        let (mask, free) = (mask.broadcast_as(known.dims())?, mask.affine(-1.0, 1.0)?);
        let kept = |k: usize, x: Tensor| Ok((x.broadcast_mul(&free)? + (&path[grid.steps() - k] * &mask)?)?);
        let start = kept(0, prior.clone())?;
        last(self.walk(grid, lambda, &start, noise, kept)?)
    }

    /// The backward steps; `amend` is given the number of steps made and the state after them.
    fn walk(
        &self,
        grid: &TimeGrid,
        lambda: f64,
        x: &Tensor,
        noise: &dyn NormalSource,
        amend: impl Fn(usize, Tensor) -> Result<Tensor>,
    ) -> Result<Vec<Tensor>> {
        in_range("lambda", lambda, 0.0, 100.0)?;
        let mut states = vec![x.clone()];
        for (k, pair) in grid.times().windows(2).enumerate() {
            let (x, step, g) = (&states[k], pair[0] - pair[1], self.noise.at(pair[0]));
            let pull = (self.score.eval(x, &[pair[0]])? * (0.5 * (1.0 + lambda * lambda) * g * g))?;
            let mut next = (x - ((self.drift.eval(x, &[pair[0]])? - pull)? * step)?)?;
            if lambda > 0.0 && k + 1 < grid.steps() {
                next = (next + (noise.normal(k, x)? * (lambda * g * step.sqrt()))?)?;
            }
            let next = amend(k + 1, next.detach())?;
            states.push(checked(next, k, pair[1])?);
        }
        Ok(states)
    }
}

fn last(mut states: Vec<Tensor>) -> Result<Tensor> {
    // There is always one, the start.
    states
        .pop()
        .ok_or_else(|| CoreError::Mismatch {
            what: "states of a trajectory",
            expected: "one or more".into(),
            found: "none".into(),
        })
        .map_err(Error::from)
}

fn checked(x: Tensor, step: usize, t: f64) -> Result<Tensor> {
    // A sum passes over nothing that is not a number.
    let sum = x.to_dtype(DType::F64)?.abs()?.sum_all()?.to_scalar::<f64>()?;
    if sum.is_finite() { Ok(x) } else { Err(Error::NonFinite { step, t }) }
}

/// Its flow, λ = 0: what likelihoods and adaptive solvers take, with any process of the same prior. Both fields have to be on the tape to
/// have a divergence.
impl<D: Field, S: Field> Field for DriftAndScore<D, S> {
    fn prediction(&self) -> Prediction {
        Prediction::Velocity
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> sde_core::Result<Tensor> {
        let halves = self.half_squares(t, x)?;
        Ok((self.drift.eval(x, t)? - self.score.eval(x, t)?.broadcast_mul(&halves)?)?)
    }
}
