//! What a score that is not the data's costs the likelihood of its flow, term by term, where the law of the data is known:
//!
//! ```text
//! KL(q₀ ‖ p₀) = KL(q_T ‖ π) + J_SM + J_Diff          p: the densities along ẋ = F x − ½ 𝒟 s_θ, from p_T = π
//! J_SM = ½ ∫ E‖s_θ − s‖²_𝒟 dt     J_Diff = ½ ∫ E ⟨s_θ − s, s_ode − s_θ⟩_𝒟 dt     J_Fisher = ½ ∫ E‖s_θ − s_ode‖²_𝒟 dt
//! M = sup_t E ∫ ‖ϵ[s_θ](x_t, τ)‖² dτ          m = sup_t E ∫ |L[s_θ](x_t, τ)| dτ
//! ```
//!
//! with s = ∇log q_t, s_ode = ∇log p_t. J_Diff² ≤ J_SM J_Fisher, and M and m bound J_Fisher up to constants that are not known: they are told, not asserted.
//! Along a path from (x, t) to T with Φ = ∂x_τ/∂x, `s_ode(x, t) = Φ_Tᵀ ∇log π(x_T) + ∫ Φᵀ ∇(∇·v) dτ`.
//!
//! Reference: Lai et al. 2022, arXiv 2210.04296, Lemma 4.1, Theorems 4.2, 4.3, Eq. (10) to (14), appendix G.

use candle_core::Tensor;
use sde_core::{Converted, Field, LinearSde, Prediction};
use serde::Serialize;

use super::fokker_planck::trace_gradient;
use super::generator::{generator, time_nodes};
use super::{KnownLaw, Steps, dot, fokker_planck_residual};
use crate::Result;

/// How finely the terms are integrated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TheoryGrid {
    /// Panels of eight times of each integral over t.
    pub panels: usize,
    /// Steps of each path to T, by Runge–Kutta of order four in the clock.
    pub path_steps: usize,
    /// Times at which the suprema are looked for.
    pub places: usize,
}

/// The terms, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Theory {
    /// KL(q_T ‖ π).
    pub end: f64,
    /// J_SM.
    pub matching: f64,
    /// J_Diff.
    pub difference: f64,
    /// J_Fisher.
    pub fisher: f64,
    /// M.
    pub residual: f64,
    /// m.
    pub generator: f64,
}

impl Theory {
    /// KL(q₀ ‖ p₀), as the sum of its terms.
    pub fn divergence(&self) -> f64 {
        self.end + self.matching + self.difference
    }
}

/// A field of a process whose law is known, and what stands for the expectation over x_t.
pub struct Known<'a> {
    /// The process.
    pub sde: &'a dyn LinearSde,
    /// A prediction of it.
    pub field: &'a dyn Field,
    /// The law of the data.
    pub law: &'a dyn KnownLaw,
    /// States of the law at a time, all of one weight: `[B, D]` f64.
    pub states: &'a dyn Fn(f64) -> Result<Tensor>,
}

impl Known<'_> {
    /// The terms between two times, T the second.
    ///
    /// # Errors
    /// Those of the field's derivatives and the law; where the process's clock does not reach.
    pub fn theory(&self, (from, to): (f64, f64), grid: TheoryGrid, steps: Steps) -> Result<Theory> {
        let nodes = time_nodes(self.sde, (from, to), grid.panels)?;
        let (mut matching, mut difference, mut fisher) = (0.0, 0.0, 0.0);
        for &(t, weight) in &nodes {
            let u = (self.states)(t)?;
            let found = Converted::new(self.field, self.sde, Prediction::Score).eval(&u, &[t])?;
            let exact = self.exact_score(&u, t)?;
            let flowing = self.flow_score(&u, (t, to), grid.path_steps, steps)?;
            let (off, gap) = ((&found - exact)?, (flowing - found)?);
            let diffusion = self.sde.diffusion(t);
            let mean = |a: &Tensor, b: &Tensor| -> Result<f64> {
                let values = dot(a, &diffusion.apply(b)?)?;
                Ok(0.5 * weight * values.iter().sum::<f64>() / values.len().max(1) as f64)
            };
            matching += mean(&off, &off)?;
            difference += mean(&off, &gap)?;
            fisher += mean(&gap, &gap)?;
        }
        let (residual, generator) = self.suprema(&nodes, (from, to), grid.places, steps)?;
        Ok(Theory { end: self.end(to)?, matching, difference, fisher, residual, generator })
    }

    /// ∇log q_t.
    fn exact_score(&self, u: &Tensor, t: f64) -> Result<Tensor> {
        let (_, noise) = self.law.noised(self.sde, u, t)?;
        Ok(self.sde.factor(t).inverse()?.transpose().apply(&noise)?.neg()?)
    }

    /// KL(q_T ‖ π).
    fn end(&self, to: f64) -> Result<f64> {
        let u = (self.states)(to)?;
        let (log_density, _) = self.law.noised(self.sde, &u, to)?;
        let prior = self.sde.prior();
        let dim: usize = u.dims()[1..].iter().product();
        let normaliser = 0.5 * (dim as f64 * (2.0 * std::f64::consts::PI).ln() + prior.log_abs_det(dim));
        let squares = dot(&u, &prior.inverse()?.apply(&u)?)?;
        let terms = log_density.iter().zip(&squares).map(|(log, square)| log + 0.5 * square + normaliser);
        Ok(terms.sum::<f64>() / squares.len().max(1) as f64)
    }

    /// M and m.
    fn suprema(
        &self,
        nodes: &[(f64, f64)],
        (from, to): (f64, f64),
        places: usize,
        steps: Steps,
    ) -> Result<(f64, f64)> {
        let (mut residual, mut rate) = (0.0f64, 0.0f64);
        let last = places.saturating_sub(1).max(1) as f64;
        for k in 0..places {
            let t = if k + 1 == places { to } else { from + (to - from) * k as f64 / last };
            let u = (self.states)(t)?;
            let n = u.dim(0)?.max(1) as f64;
            let (mut of_residual, mut of_rate) = (0.0, 0.0);
            for &(tau, weight) in nodes {
                let epsilon = fokker_planck_residual(self.sde, self.field, &u, tau, steps)?;
                of_residual += weight * dot(&epsilon, &epsilon)?.iter().sum::<f64>() / n;
                let values = generator(self.sde, self.field, &u, tau)?;
                of_rate += weight * values.iter().map(|l| l.abs()).sum::<f64>() / n;
            }
            residual = residual.max(of_residual);
            rate = rate.max(of_rate);
        }
        Ok((residual, rate))
    }

    /// ∇log p_t: the path of each state to T, with what it does to its neighbours.
    fn flow_score(&self, u: &Tensor, (from, to): (f64, f64), count: usize, steps: Steps) -> Result<Tensor> {
        let (batch, dim) = (u.dim(0)?, u.dim(1)?);
        let identity =
            Tensor::eye(dim, u.dtype(), u.device())?.broadcast_as((batch, dim, dim))?.contiguous()?;
        let mut state = [u.clone(), identity, u.zeros_like()?];
        let (low, high) = (self.sde.clock(from), self.sde.clock(to));
        let h = (high - low) / count.max(1) as f64;
        let time = |clock: f64| self.sde.time_of_clock(clock).clamp(from, to);
        for k in 0..count.max(1) {
            let clock = low + h * k as f64;
            let add = |state: &[Tensor; 3], slope: &[Tensor; 3], by: f64| -> Result<[Tensor; 3]> {
                let [a, b, c] = [0, 1, 2].map(|i| &state[i] + (&slope[i] * by));
                Ok([a?, b?, c?])
            };
            let first = self.slope(&state, time(clock), steps)?;
            let second = self.slope(&add(&state, &first, 0.5 * h)?, time(clock + 0.5 * h), steps)?;
            let third = self.slope(&add(&state, &second, 0.5 * h)?, time(clock + 0.5 * h), steps)?;
            let fourth = self.slope(&add(&state, &third, h)?, time(clock + h), steps)?;
            for (slope, share) in [(first, 1.0), (second, 2.0), (third, 2.0), (fourth, 1.0)] {
                state = add(&state, &slope, share * h / 6.0)?;
            }
        }
        let [end, moved, gathered] = state;
        let pull = self.sde.prior().inverse()?.apply(&end)?.neg()?;
        let pulled = moved.transpose(1, 2)?.contiguous()?.matmul(&pull.unsqueeze(2)?)?.squeeze(2)?;
        Ok((pulled + gathered)?)
    }

    /// d/d clock of (x, Φ, ∫ Φᵀ ∇(∇·v)).
    fn slope(&self, [x, moved, _]: &[Tensor; 3], t: f64, steps: Steps) -> Result<[Tensor; 3]> {
        let score = Converted::new(self.field, self.sde, Prediction::Score);
        let dim = x.dim(1)?;
        let (drift, diffusion) = (self.sde.drift(t), self.sde.diffusion(t));
        let axes = sde_solvers::Divergence::Exact
            .probes(&sde_core::noise::BatchNoise::new(sde_core::noise::Noise::new(0), 0, []), x)?;
        // Rows of ∇v = F − ½ 𝒟 J: of row i what 𝒟 eᵢ pulls back, and Fᵀ eᵢ.
        let turned = axes.iter().map(|a| diffusion.apply(a)).collect::<sde_core::Result<Vec<_>>>()?;
        let (s, products) = score.vjps(x, &[t], &turned)?;
        let rows = axes
            .iter()
            .zip(&products)
            .map(|(a, product)| Ok((drift.transpose().apply(a)? - (product * 0.5)?)?));
        let slopes =
            Tensor::stack(&rows.collect::<Result<Vec<Tensor>>>()?, 1)?.reshape((x.dim(0)?, dim, dim))?;
        let velocity = (drift.apply(x)? - (diffusion.apply(&s)? * 0.5)?)?;
        let bent = trace_gradient(self.sde, &score, x, t, steps)?.neg()?;
        let gathered = moved.transpose(1, 2)?.contiguous()?.matmul(&bent.unsqueeze(2)?)?.squeeze(2)?;
        let rate = 1.0 / self.sde.clock_rate(t);
        Ok([(velocity * rate)?, (slopes.matmul(moved)? * rate)?, (gathered * rate)?])
    }
}
