//! Hamiltonian Monte Carlo: trajectories of fixed length, step sizes that adapt in the warm-up.
//!
//! Reference: Duane, Kennedy, Pendleton, Roweth 1987, "Hybrid Monte Carlo"; Neal 2011, arXiv 1206.1901.
//! Differs: every chain adapts its own step size, so that it does not depend on the others.

use sde_core::Target;
use sde_core::noise::Noise;
use sde_core::target::{Drawn, TargetSampler};

use super::bridge::{Fit, finished};
use super::law::{Base, Law, Points, some_samples};
use super::step_size::DualAveraging;
use super::trajectory::{At, Mass, Move};
use crate::error::in_range;
use crate::{Error, Result};

/// Hamiltonian Monte Carlo.
#[derive(Debug, Clone, PartialEq)]
pub struct Hmc {
    /// The law that chains start from.
    pub base: Base,
    /// Iterations in which the step size adapts; nothing is kept of them.
    pub warmup: u32,
    /// Iterations after that.
    pub iterations: u32,
    /// L, the leapfrog steps of an iteration.
    pub steps: usize,
    /// ε at first; for good where there is no warm-up.
    pub step_size: f64,
    /// The acceptance that the warm-up aims at; 0.65 is best in many dimensions.
    pub acceptance: f64,
    /// Each move's ε is its chain's times 1 + jitter·U(−1, 1), so that no period of the target is hit for ever.
    pub jitter: f64,
    /// M.
    pub mass: Mass,
    /// The Gaussian by which log Z is estimated.
    pub fit: Fit,
}

/// A run of chains: how they move, how often, and how their step sizes adapt.
pub(super) struct Run<'a> {
    pub(super) kernel: Move<'a>,
    pub(super) warmup: u32,
    pub(super) iterations: u32,
    pub(super) step_size: f64,
    pub(super) acceptance: f64,
}

impl Run<'_> {
    fn check(&self, dim: usize) -> Result<()> {
        in_range("step size", self.step_size, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("acceptance to aim at", self.acceptance, 0.01, 0.999)?;
        in_range("jitter of the step size", self.kernel.jitter, 0.0, 0.99)?;
        in_range("leapfrog steps", self.kernel.steps as f64, 1.0, 1e9)?;
        self.kernel.mass.check(dim)
    }

    /// Runs chains from points; `visit` sees the points after every iteration that follows the warm-up.
    pub(super) fn go(
        &self,
        law: &Law,
        points: &mut Points,
        noise: Noise,
        mut visit: impl FnMut(u32, &Points) -> Result<()>,
    ) -> Result<()> {
        self.check(points.dim())?;
        let mut sizes = vec![DualAveraging::new(self.step_size, self.acceptance); points.len()];
        let mut own: Vec<f64> = vec![self.step_size; points.len()];
        for iteration in 0..self.warmup.saturating_add(self.iterations) {
            let warming = iteration < self.warmup;
            let at = At { noise, site: 0, iteration };
            let acceptance = self.kernel.apply(law, points, &own, at)?;
            if warming {
                let last = iteration + 1 == self.warmup;
                for ((size, own), rate) in sizes.iter_mut().zip(&mut own).zip(acceptance) {
                    size.learn(rate);
                    *own = if last { size.kept() } else { size.now() };
                }
            } else {
                visit(iteration - self.warmup, points)?;
            }
        }
        points.arrived(self.kernel.name)
    }

    /// A [`Drawn`] of the last states of `chains` chains.
    pub(super) fn drawn(
        &self,
        target: &dyn Target,
        base: &Base,
        chains: usize,
        noise: Noise,
        fit: Fit,
    ) -> Result<Drawn> {
        let law = Law::new(target, base)?;
        some_samples(chains)?;
        let mut points = Points::at(target, base.start(chains, noise, 0))?;
        self.go(&law, &mut points, noise, |_, _| Ok(()))?;
        let moves = u64::from(self.warmup) + u64::from(self.iterations);
        let evaluations = chains as u64 * (1 + moves * self.kernel.steps as u64);
        finished(target, &points, fit, noise, evaluations)
    }
}

impl Hmc {
    fn run(&self) -> Run<'_> {
        Run {
            kernel: Move {
                name: "hmc",
                steps: self.steps,
                adjusted: true,
                jitter: self.jitter,
                mass: &self.mass,
            },
            warmup: self.warmup,
            iterations: self.iterations,
            step_size: self.step_size,
            acceptance: self.acceptance,
        }
    }

    /// Runs one chain from each of `starts` (row by row, D numbers each); `visit` is given the number and the states, row by row, of every
    /// iteration after the warm-up.
    ///
    /// # Errors
    /// Those of the target and of `visit`; settings out of their range; [`Error::NoDensity`] for a chain that ends where the target has none.
    pub fn visit(
        &self,
        target: &dyn Target,
        starts: &[f64],
        noise: Noise,
        mut visit: impl FnMut(u32, &[f64]) -> Result<()>,
    ) -> Result<()> {
        let law = Law::new(target, &self.base)?;
        if starts.is_empty() || !starts.len().is_multiple_of(target.dim()) {
            let expected = format!("{} numbers a chain", target.dim());
            let found = starts.len().to_string();
            return Err(Error::Core(sde_core::Error::Mismatch {
                what: "the starts of chains",
                expected,
                found,
            }));
        }
        let mut points = Points::at(target, starts.to_vec())?;
        self.run().go(&law, &mut points, noise, |iteration, points| visit(iteration, &points.x))
    }
}

impl TargetSampler for Hmc {
    fn name(&self) -> String {
        "hmc".into()
    }

    fn draw(&self, target: &dyn Target, samples: usize, noise: Noise) -> sde_core::Result<Drawn> {
        self.run().drawn(target, &self.base, samples, noise, self.fit).map_err(Error::into_core)
    }
}
