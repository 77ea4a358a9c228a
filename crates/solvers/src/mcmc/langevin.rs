//! Langevin's dynamics in steps of time h: x + h∇log π + √(2h) ξ, as it is ([`Ula`]) or corrected by acceptance ([`Mala`]).
//!
//! Reference: Roberts, Tweedie 1996, "Exponential convergence of Langevin distributions and their discrete approximations", doi 10.2307/3318418; the
//! acceptance of 0.574: Roberts, Rosenthal 1998, doi 10.1111/1467-9868.00123.

use sde_core::Target;
use sde_core::noise::Noise;
use sde_core::target::{Drawn, TargetSampler};

use super::bridge::Fit;
use super::hmc::Run;
use super::law::Base;
use super::trajectory::{Mass, Move};
use crate::Error;

/// Unadjusted Langevin: no move is rejected, and the law that it samples is μ up to O(h).
#[derive(Debug, Clone, PartialEq)]
pub struct Ula {
    /// The law that chains start from.
    pub base: Base,
    /// Steps.
    pub iterations: u32,
    /// h.
    pub time_step: f64,
    /// The Gaussian by which log Z is estimated.
    pub fit: Fit,
}

/// Metropolis-adjusted Langevin.
#[derive(Debug, Clone, PartialEq)]
pub struct Mala {
    /// The law that chains start from.
    pub base: Base,
    /// Steps in which h adapts; nothing is kept of them.
    pub warmup: u32,
    /// Steps after that.
    pub iterations: u32,
    /// h at first; for good where there is no warm-up.
    pub time_step: f64,
    /// The acceptance that the warm-up aims at; 0.574 is best in many dimensions.
    pub acceptance: f64,
    /// The Gaussian by which log Z is estimated.
    pub fit: Fit,
}

fn run(name: &'static str, adjusted: bool, time_step: f64) -> Run<'static> {
    let kernel = Move { name, steps: 1, adjusted, jitter: 0.0, mass: &Mass::Unit };
    Run { kernel, warmup: 0, iterations: 0, step_size: (2.0 * time_step).sqrt(), acceptance: 0.5 }
}

impl TargetSampler for Ula {
    fn name(&self) -> String {
        "langevin".into()
    }

    fn draw(&self, target: &dyn Target, samples: usize, noise: Noise) -> sde_core::Result<Drawn> {
        let run = Run { iterations: self.iterations, ..run("langevin", false, self.time_step) };
        run.drawn(target, &self.base, samples, noise, self.fit).map_err(Error::into_core)
    }
}

impl TargetSampler for Mala {
    fn name(&self) -> String {
        "mala".into()
    }

    fn draw(&self, target: &dyn Target, samples: usize, noise: Noise) -> sde_core::Result<Drawn> {
        let Self { warmup, iterations, acceptance, .. } = *self;
        let run = Run { warmup, iterations, acceptance, ..run("mala", true, self.time_step) };
        run.drawn(target, &self.base, samples, noise, self.fit).map_err(Error::into_core)
    }
}
