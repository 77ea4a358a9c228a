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
use sde_core::target::{Bridge, Control, Drawn, LogWeights, TargetSampler};

use crate::Result;

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
            let guide = self
                .control
                .needs_score()
                .then(|| self.bridge.guide(target, &x))
                .transpose()?
                .map(|density| density.score);
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
            lowest_share: None,
            bound: Some(bound),
            evaluations: (each * samples) as u64,
        })
    }
}
