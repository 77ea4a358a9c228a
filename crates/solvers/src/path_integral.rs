//! The path integral sampler: a controlled diffusion from the origin, with the weight of each path.
//!
//! ```text
//! x' = x + g u Δ + g √Δ ξ        x₀ = 0        Δ = T/N
//! Ŝ = Σ [½ |u|² Δ + √Δ u·ξ] + log μ⁰(x_N) − log μ̂(x_N)        μ⁰ = N(0, g² T I)
//! E[e^{−Ŝ}] = Z        E[−Ŝ] ≤ log Z        w = e^{−Ŝ}
//! ```
//!
//! The Euler steps have Gaussian transitions with and without the control, so Ŝ is the logarithm of a ratio of two discrete laws: both statements hold for
//! every N and every control, not in a limit. The term in ξ has mean zero and is kept, since it is what makes Ŝ nearly constant under a good control.
//!
//! Reference: Zhang, Chen 2022, arXiv 2111.15141; Zhang 2023 (thesis), Algorithm 4, Eqs. (5.18)–(5.20), Theorem 5.

use candle_core::{DType, Device, Tensor};
use sde_core::Target;
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::target::{Control, Drawn, LogWeights, TargetSampler};

use crate::Result;

/// The discretised diffusion that a control acts on, which starts at the origin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bridge {
    /// N.
    pub steps: usize,
    /// T.
    pub horizon: f64,
    /// g.
    pub noise: f64,
    /// Entries of ∇ log μ̂ are kept within ± this before the control sees them.
    pub clip: f64,
}

impl Bridge {
    /// Refuses what is no diffusion.
    ///
    /// # Errors
    /// [`sde_core::Error::Range`].
    pub fn check(&self) -> Result<()> {
        let values = [
            ("the number of steps of a path", self.steps as f64),
            ("the horizon of a path", self.horizon),
            ("the noise of a path", self.noise),
            ("the bound of a target's score", self.clip),
        ];
        for (what, found) in values {
            if !(found > 0.0 && found.is_finite()) {
                let (low, high) = (f64::MIN_POSITIVE, f64::MAX);
                return Err(sde_core::Error::Range { what, found, low, high }.into());
            }
        }
        Ok(())
    }

    /// Δ.
    pub fn step(&self) -> f64 {
        self.horizon / self.steps as f64
    }

    /// log μ⁰ of the end of an uncontrolled path.
    ///
    /// # Shapes
    /// `[B, D]` to `[B]`.
    ///
    /// # Errors
    /// Those of the tensors.
    pub fn log_reference(&self, x: &Tensor) -> Result<Tensor> {
        let spread = self.noise * self.noise * self.horizon;
        let constant = -0.5 * x.dim(1)? as f64 * (std::f64::consts::TAU * spread).ln();
        Ok(x.sqr()?.sum(1)?.affine(-0.5 / spread, constant)?)
    }

    /// ∇ log μ̂ as a control sees it: clipped, of the type of `x`, and a constant to differentiation.
    ///
    /// # Shapes
    /// `[B, D]`.
    ///
    /// # Errors
    /// When the target's density or score is not finite.
    pub fn guide(&self, target: &dyn Target, x: &Tensor) -> Result<Tensor> {
        let score = target.finite_log_density(&on_host(x)?)?.score;
        Ok(score.clamp(-self.clip, self.clip)?.to_dtype(x.dtype())?.to_device(x.device())?)
    }
}

/// A state in f64 on the host, off the tape, as targets take it.
fn on_host(x: &Tensor) -> Result<Tensor> {
    Ok(x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
}

/// The sampler of a control.
pub struct PathIntegral<C> {
    name: String,
    bridge: Bridge,
    control: C,
    chunk: usize,
}

/// Controlled paths, at their ends.
#[derive(Debug, Clone)]
pub struct Paths {
    /// x_N, `[B, D]`.
    pub ends: Tensor,
    /// −Ŝ of each.
    pub log_weights: Vec<f64>,
}

impl<C: Control> PathIntegral<C> {
    /// The sampler called `name`, which simulates at most `chunk` paths at a time.
    ///
    /// # Errors
    /// As [`Bridge::check`], and for a `chunk` of zero.
    pub fn new(name: impl Into<String>, bridge: Bridge, control: C, chunk: usize) -> Result<Self> {
        bridge.check()?;
        if chunk == 0 {
            let what = "the number of paths at a time";
            return Err(sde_core::Error::Range { what, found: 0.0, low: 1.0, high: f64::MAX }.into());
        }
        Ok(Self { name: name.into(), bridge, control, chunk })
    }

    /// One path for each sample of `noise`. `watch` is shown each state, the first one included.
    ///
    /// # Errors
    /// Those of target and control; [`sde_core::Error::NonFinite`] for a control that is not finite.
    pub fn paths(
        &self,
        target: &dyn Target,
        noise: &BatchNoise,
        watch: &mut dyn FnMut(&Tensor) -> Result<()>,
    ) -> Result<Paths> {
        let Bridge { steps, noise: g, .. } = self.bridge;
        let (batch, dim, dt) = (noise.samples.len(), target.dim(), self.bridge.step());
        let mut x = Tensor::zeros((batch, dim), DType::F64, &Device::Cpu)?;
        let mut cost = Tensor::zeros(batch, DType::F64, &Device::Cpu)?;
        watch(&x)?;
        for k in 0..steps {
            let guide = self.control.needs_score().then(|| self.bridge.guide(target, &x)).transpose()?;
            let u = self.control.control(&x, k as f64 * dt, guide.as_ref())?.detach();
            let xi =
                noise.tensor(Law::Normal, Stream::Sampler, k as u32, &[dim], DType::F64, &Device::Cpu)?;
            let dw = (xi * dt.sqrt())?;
            let drift = (&u * dt)?;
            cost = (cost + (&u * ((&drift * 0.5)? + &dw)?)?.sum(1)?)?;
            x = (x + ((drift + dw)? * g)?)?;
            watch(&x)?;
        }
        let density = target.log_density(&x)?.value;
        let log_weights = ((density - self.bridge.log_reference(&x)?)? - cost)?;
        Ok(Paths { ends: x, log_weights: log_weights.to_vec1()? })
    }
}

impl<C: Control> TargetSampler for PathIntegral<C> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn draw(&self, target: &dyn Target, samples: usize, noise: Noise) -> sde_core::Result<Drawn> {
        let addresses: Vec<u32> = (0..samples as u32).collect();
        let parts = addresses
            .chunks(self.chunk)
            .map(|part| self.paths(target, &BatchNoise::new(noise, 0, part.iter().copied()), &mut |_| Ok(())))
            .collect::<Result<Vec<_>>>()
            .map_err(sde_core::Error::model)?;
        let ends: Vec<&Tensor> = parts.iter().map(|part| &part.ends).collect();
        let logs: Vec<f64> = parts.iter().flat_map(|part| part.log_weights.iter().copied()).collect();
        let bound = logs.iter().sum::<f64>() / samples as f64;
        let weights = LogWeights::new(logs)?;
        let each = if self.control.needs_score() { self.bridge.steps + 1 } else { 1 };
        Ok(Drawn {
            samples: Tensor::cat(&ends, 0)?,
            log_normaliser: Some(weights.log_mean().value),
            weights: Some(weights),
            bound: Some(bound),
            evaluations: (each * samples) as u64,
        })
    }
}
