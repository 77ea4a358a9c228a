//! Diffusions whose noise and rotation depend on the state, with the stationary law N(0, I/m) whatever they are:
//!
//! `dx = ḃ [−m (½ Q(x) + ω(x)) x + ½ ∇·Q(x) + ∇·ω(x)] dt + √ḃ L(x) dw`, `Q = L Lᵀ`, `ω = −ωᵀ`, `(∇·Q)_i = Σ_j ∂_j Q_ij`, on the clock b of VP.
//!
//! There is no transition density: states are simulated, by Euler–Maruyama in b with addressed noise, and a network learns the score of the chain
//! (`StepDsm` of `sde-train`). Only `L Lᵀ` enters the law, so L is any factor, and no root is taken. Whatever Q and ω are made of, networks on the tape
//! included, gradients reach it through the simulated path.
//!
//! Reference: Du, Zhang, Yang, Du 2023, arXiv 2206.10365, Theorem 3.3 and Eq. (12), (18), (22); Ma, Chen, Fox 2015, arXiv 1506.04696, Eq. (3) for ω(x).
//! Differs: ∇·Q is not multiplied by m, as (22) has it: N(0, I/m) would not be stationary.

mod matrices;

use candle_core::Tensor;

pub use matrices::{Derivative, Diagonal, DiffusionMatrix, Linear, LowRank, Turning, TurningFn};

use crate::error::in_range;
use crate::noise::{BatchNoise, Law, Stream};
use crate::process::Vp;
use crate::{Error, Result};

/// A process with a noise and a rotation of the state.
pub struct StateSde {
    vp: Vp,
    precision: f64,
    diffusion: Box<dyn DiffusionMatrix>,
    turning: Option<Box<dyn Turning>>,
}

/// A simulated chain, `X_{k+1} = X_k + Δ_k f(X_k) + √Δ_k L(X_k) ξ_k`.
#[derive(Debug, Clone)]
pub struct Chain {
    /// X_0, …, X_N.
    pub states: Vec<Tensor>,
    /// ξ_0, …, ξ_{N−1}.
    pub noises: Vec<Tensor>,
    /// Δ_0, …, Δ_{N−1}, in units of b.
    pub steps: Vec<f64>,
}

impl StateSde {
    /// The process with Q of `diffusion` and ω of `turning` (none: 0), on the clock of `vp`, with the stationary law N(0, I/m), m the `precision`.
    ///
    /// # Errors
    /// Unless m lies in [1e-12, 1e12].
    pub fn new(
        vp: Vp,
        precision: f64,
        diffusion: Box<dyn DiffusionMatrix>,
        turning: Option<Box<dyn Turning>>,
    ) -> Result<Self> {
        in_range("precision m of the stationary law", precision, 1e-12, 1e12)?;
        Ok(Self { vp, precision, diffusion, turning })
    }

    /// The VP process whose clock it has.
    pub fn vp(&self) -> &Vp {
        &self.vp
    }

    /// m.
    pub fn precision(&self) -> f64 {
        self.precision
    }

    /// Q, by its factor L.
    pub fn diffusion(&self) -> &dyn DiffusionMatrix {
        self.diffusion.as_ref()
    }

    /// Q(x) u.
    ///
    /// # Shapes
    /// `x` and `u` `[B, …]`; the product has their shape.
    pub fn diffuse(&self, x: &Tensor, u: &Tensor) -> Result<Tensor> {
        self.diffusion.root(x, &self.diffusion.root_transposed(x, u)?)
    }

    /// `−m ω(x) x + ∇·ω(x)`, which no score changes; none without rotation.
    ///
    /// # Shapes
    /// That of `x`, `[B, …]`.
    pub fn turn(&self, x: &Tensor) -> Result<Option<Tensor>> {
        let Some(turning) = &self.turning else { return Ok(None) };
        let turned = (turning.apply(x, x)? * -self.precision)?;
        Ok(Some(match turning.divergence(x)? {
            Some(divergence) => (turned + divergence)?,
            None => turned,
        }))
    }

    /// f, the drift per unit of b: `−m (½ Q + ω) x + ½ ∇·Q + ∇·ω`.
    ///
    /// # Shapes
    /// That of `x`, `[B, …]`.
    pub fn drift(&self, x: &Tensor) -> Result<Tensor> {
        let mut drift = (self.diffuse(x, x)? * (-0.5 * self.precision))?;
        if let Some(divergence) = self.diffusion.divergence(x)? {
            drift = (drift + (divergence * 0.5)?)?;
        }
        match self.turn(x)? {
            Some(turn) => Ok((drift + turn)?),
            None => Ok(drift),
        }
    }

    /// The chain from `x` through the increasing `times`; ξ_k is drawn at site k of the stream of diffusion, whatever the batch.
    ///
    /// # Shapes
    /// `x` `[B, …]`, one address of `noise` for each sample.
    ///
    /// # Errors
    /// For times that do not increase, and whatever Q and ω return.
    pub fn simulate(&self, x: &Tensor, times: &[f64], noise: &BatchNoise) -> Result<Chain> {
        let shape = self.diffusion.noise_shape(&x.dims()[1..]);
        let mut chain = Chain { states: vec![x.clone()], noises: Vec::new(), steps: Vec::new() };
        for (k, pair) in times.windows(2).enumerate() {
            let step = self.vp.integral(pair[1]) - self.vp.integral(pair[0]);
            if step.is_nan() || step <= 0.0 {
                return Err(Error::Mismatch {
                    what: "times of a simulated chain",
                    expected: "an increasing sequence".into(),
                    found: format!("{} after {}", pair[1], pair[0]),
                });
            }
            let xi = noise.tensor(Law::Normal, Stream::Diffusion, k as u32, &shape, x.dtype(), x.device())?;
            let last = &chain.states[k];
            let moved = (last + (self.drift(last)? * step)?)?;
            let next = (moved + (self.diffusion.root(last, &xi)? * step.sqrt())?)?;
            chain.states.push(next);
            chain.noises.push(xi);
            chain.steps.push(step);
        }
        Ok(chain)
    }
}
