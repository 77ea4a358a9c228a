//! Score matching with the Fokker–Planck equation of the score as a penalty ("FP-Diffusion"):
//!
//! ```text
//! J = J_DSM + E_t E_x w_t [ α D⁻ᵐ λ(t) ‖ϵ[s](x, t)‖₂ᵐ + β |L[s](x, t)| ]
//! ```
//!
//! with ϵ and L as in `equation.rs`, t from the law of the plain loss and w_t its weight. J_DSM is half a sum over dimensions in the
//! paper; α and β are those of the paper whatever the reduction: where the plain loss is a mean, or a sum, so many times as much is
//! added. Held-out data have the plain loss alone, so that runs compare.
//!
//! Without data's scores, from a score that is known at the smallest time alone, the same equation is solved as a Cauchy problem:
//! `J = E w_t α D⁻ᵐ λ ‖ϵ‖ᵐ + c E ‖s(x, t₀) − s₀(x)‖²` (with [`Cauchy`](super::Cauchy)).
//!
//! An estimate's square is no estimate of the square: with one probe a perfect score has a residual that is not small.
//! For m = 2 two independent estimates are multiplied instead. For other m, and for |L|, no unbiased estimate is known.
//!
//! Reference: Lai et al. 2022, arXiv 2210.04296, Eq. (19), (20), (24), section 5, appendix C; Hutchinson 1990.
//! Differs: products of two estimates; λ outside the power as the authors compute and the paper does not print; ⟨ϵ, z⟩ is
//! squared, or its modulus scaled, before the mean (Eq. (24) as printed is 0); |L| is a mean over samples, with tr F.

mod cauchy;
mod config;
mod equation;
mod rate;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Stream, host_tensor};
use sde_core::{LinearSde, Model};
use sde_data::Batch;

pub use cauchy::Cauchy;
pub use config::{Estimator, FokkerPlanckConfig, Penalty, Points, RateStep, Route, TimeWeight};
use equation::{Asked, Directions, Equation, Residual};
pub use rate::TimeDifference;

use super::noised::Noised;
use super::{DrawnTime, Dsm, Loss, LossValue, Reduction, TimeLaw};
use crate::Result;
use crate::fit::HELD_OUT_STEP;

/// Sites of the penalty's noise: z, the box, then signs.
const Z: u32 = 0;
const PLACE: u32 = 1;
const SIGNS: u32 = 2;

/// The name that the penalty has in the log.
const PENALTY: &str = "fokker_planck";

/// Keeps the root of a residual of 0 differentiable.
const TINY: f64 = 1e-30;

/// The penalty of a process.
#[derive(Clone)]
pub struct FokkerPlanck {
    sde: Arc<dyn LinearSde>,
    time: TimeLaw,
    config: FokkerPlanckConfig,
}

impl FokkerPlanck {
    /// The penalty with these choices.
    ///
    /// # Errors
    /// [`crate::Error::Config`], also for what needs gradients of gradients: [`sde_nets::Error::NotTaped`] where the tape keeps none.
    pub fn new(sde: Arc<dyn LinearSde>, time: TimeLaw, config: FokkerPlanckConfig) -> Result<Self> {
        config.check()?;
        time.check(sde.as_ref())?;
        if config.needs_nested() {
            sde_nets::derivatives::require_nested(
                "loss.fokker_planck with the route \"reverse\" or \"mixed\"",
            )?;
        }
        Ok(Self { sde, time, config })
    }

    /// `w_t [α D⁻ᵐ λ ‖ϵ‖ᵐ + β |L|]` of each sample.
    ///
    /// # Shapes
    /// `[B]`.
    ///
    /// # Errors
    /// Those of the model; for times that the process's clock does not reach.
    pub fn per_sample(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<Tensor> {
        let FokkerPlanckConfig { alpha, beta, m, penalty, estimator, .. } = self.config;
        let noised = Noised::new(self.sde.as_ref(), &self.time, &batch.x, noise)?;
        let x = self.place(&noised, noise)?;
        let equation = Equation::new(self.sde.as_ref(), model, batch, &noised.t);
        let rate = if alpha == 0.0 { None } else { Some(equation.rate(&x, self.config.rate)?) };
        let of_residual = rate.as_ref().filter(|_| penalty == Penalty::Residual);
        let z = match estimator {
            Estimator::Projected { .. } => {
                Some(noise.tensor(Law::Normal, Stream::Probe, Z, &x.dims()[1..], x.dtype(), x.device())?)
            }
            _ => None,
        };
        let asked = match (of_residual, &z) {
            (None, _) => Asked::Generator,
            (Some(rate), None) => Asked::Vector { rate },
            (Some(rate), Some(z)) => Asked::Along { rate, z },
        };
        let solved = if of_residual.is_some() || beta != 0.0 {
            let twice = of_residual.is_some();
            Some(equation.solve(&x, &self.directions(&x, noise, twice)?, self.config.route, &asked)?)
        } else {
            None
        };
        let power = match (&solved, rate) {
            (_, None) => None,
            (Some((_, Residual::Vectors(found))), _) => Some(self.power(&products(found)?)?),
            (Some((_, Residual::Along(found))), _) => {
                Some((self.power(&product(found)?)? / normal_moment(m))?)
            }
            (_, Some(rate)) => Some(self.power(&products(&[rate])?)?),
        };
        let dim = x.dims()[1..].iter().product::<usize>() as f64;
        let mut sum = Tensor::zeros(noised.t.len(), x.dtype(), x.device())?;
        if let Some(power) = power {
            sum = (sum + (power * self.weights(&noised.drawn, alpha / dim.powf(m), &x)?)?)?;
        }
        if let Some((generator, _)) = solved.filter(|_| beta != 0.0) {
            let weights = noised.drawn.iter().map(|d| beta * d.weight).collect();
            sum = (sum
                + (generator.abs()? * host_tensor(weights, &[noised.t.len()], x.dtype(), x.device())?)?)?;
        }
        Ok(sum)
    }

    /// Where the penalty looks.
    fn place(&self, noised: &Noised, noise: &BatchNoise) -> Result<Tensor> {
        Ok(match self.config.points {
            Points::Noised => noised.state.clone(),
            Points::Data => noised.data.clone(),
            Points::Box { low, high } => {
                let (like, dims) = (&noised.state, &noised.state.dims()[1..]);
                noise
                    .tensor(Law::Uniform, Stream::Probe, PLACE, dims, like.dtype(), like.device())?
                    .affine(high - low, low)?
            }
        })
    }

    /// The directions of one estimate of the trace, or of two.
    fn directions(&self, x: &Tensor, noise: &BatchNoise, twice: bool) -> Result<Vec<Directions>> {
        let (count, unbiased) = match self.config.estimator {
            Estimator::Exact => {
                let dim: usize = x.dims()[1..].iter().product();
                let identity = Tensor::eye(dim, x.dtype(), x.device())?;
                let axis = |i: usize| -> Result<Tensor> {
                    let axis = identity.get(i)?.reshape(&x.dims()[1..])?.unsqueeze(0)?;
                    Ok(axis.broadcast_as(x.dims())?.contiguous()?)
                };
                let vectors = (0..dim).map(axis).collect::<Result<_>>()?;
                return Ok(vec![Directions { vectors, share: 1.0 }]);
            }
            Estimator::Probes { count, unbiased } | Estimator::Projected { count, unbiased } => {
                (count, unbiased)
            }
        };
        let estimates = if twice && unbiased && self.config.m == 2.0 { 2 } else { 1 };
        let signs = |k: usize| {
            let site = SIGNS + k as u32;
            noise.tensor(Law::Rademacher, Stream::Probe, site, &x.dims()[1..], x.dtype(), x.device())
        };
        (0..estimates)
            .map(|e| {
                let vectors = (e * count..(e + 1) * count).map(signs).collect::<sde_core::Result<_>>()?;
                Ok(Directions { vectors, share: 1.0 / count as f64 })
            })
            .collect()
    }

    /// ‖ϵ‖ᵐ of ‖ϵ‖².
    fn power(&self, squares: &Tensor) -> Result<Tensor> {
        match self.config.m {
            2.0 => Ok(squares.clone()),
            m => Ok((squares + TINY)?.powf(0.5 * m)?),
        }
    }

    /// `scale · w_t λ`, or λᵐ.
    fn weights(&self, drawn: &[DrawnTime], scale: f64, like: &Tensor) -> Result<Tensor> {
        let weight = |d: &DrawnTime| {
            let square = || self.sde.diffusion(d.t).max_abs();
            let lambda = match self.config.weight {
                TimeWeight::Constant => 1.0,
                TimeWeight::G => square().sqrt(),
                TimeWeight::G2 => square(),
            };
            let lambda = if self.config.weight_inside { lambda.powf(self.config.m) } else { lambda };
            scale * d.weight * lambda
        };
        let weights = drawn.iter().map(weight).collect();
        Ok(host_tensor(weights, &[drawn.len()], like.dtype(), like.device())?)
    }
}

/// ‖ϵ‖² of each sample from one estimate, or two.
fn products(found: &[Tensor]) -> Result<Tensor> {
    Ok(sde_nets::derivatives::per_sample(&product(found)?)?)
}

/// The square of one, the product of two.
fn product(found: &[Tensor]) -> Result<Tensor> {
    match found {
        [a, b] => Ok((a * b)?),
        [a, ..] => Ok(a.sqr()?),
        [] => Err(crate::Error::config("loss.fokker_planck", "an estimate", "none")),
    }
}

/// `E |z|ᵐ` of a standard normal.
fn normal_moment(m: f64) -> f64 {
    2f64.powf(0.5 * m) * libm::tgamma(0.5 * (m + 1.0)) / std::f64::consts::PI.sqrt()
}

/// The denoising loss with the penalty.
#[derive(Clone)]
pub struct ScoreFpe {
    dsm: Dsm,
    penalty: FokkerPlanck,
}

impl ScoreFpe {
    /// `dsm` and the penalty beside it.
    pub fn new(dsm: Dsm, penalty: FokkerPlanck) -> Self {
        Self { dsm, penalty }
    }
}

impl Loss for ScoreFpe {
    fn loss(&self, model: &dyn Model, batch: &Batch, noise: &BatchNoise) -> Result<LossValue> {
        let plain = self.dsm.loss(model, batch, noise)?;
        if noise.step == HELD_OUT_STEP || !self.penalty.config.is_on() {
            return Ok(plain);
        }
        let dim = batch.x.dims()[1..].iter().product::<usize>() as f64;
        let scale = match self.dsm.reduction() {
            Reduction::HalfSum => 1.0,
            Reduction::Sum => 2.0,
            Reduction::Mean => 2.0 / dim,
        };
        let penalty = (self.penalty.per_sample(model, batch, noise)?.mean_all()? * scale)?;
        with_penalty(plain.total, &penalty)
    }
}

/// A loss and what is added to it, which the log shows.
fn with_penalty(plain: Tensor, penalty: &Tensor) -> Result<LossValue> {
    // One transfer, beside all that the penalty has taken.
    let value = penalty.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar()?;
    let total = (plain + penalty)?;
    Ok(LossValue { terms: vec![(PENALTY, value)], ..LossValue::on_tape(total) })
}
