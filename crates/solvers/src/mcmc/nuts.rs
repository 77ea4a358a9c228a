//! The no-U-turn sampler: trajectories that grow, doubling, until they begin to turn back.
//!
//! A trajectory doubles to a random side. Of its states z one is taken by weight e^{−H(z)}: inside a subtree in proportion, of two trees the new one with
//! probability min(1, W_new/W_old). It ends where ρ·M⁻¹p is negative at an end, ρ the sum of all momenta, for the tree or a subtree of it, where H has grown by
//! more than 1000, or at the greatest depth; from a start without density, at the first state with one. Step sizes adapt, to the mean of min(1, e^{−ΔH}) over the states made.
//!
//! Reference: Hoffman, Gelman 2014, arXiv 1111.4246, Algorithm 6 (adaptation); Betancourt 2017, arXiv 1701.02434, A.3–A.4 (weights, turning).

use rayon::prelude::*;
use sde_core::Target;
use sde_core::noise::{Draws, Noise, Stream};
use sde_core::target::{Drawn, TargetSampler};

use super::bridge::{Fit, finished};
use super::law::{Base, Law, Points, some_samples};
use super::step_size::DualAveraging;
use super::trajectory::{Mass, Move};
use crate::error::in_range;
use crate::{Error, Result};

/// The no-U-turn sampler.
#[derive(Debug, Clone, PartialEq)]
pub struct Nuts {
    /// The law that chains start from.
    pub base: Base,
    /// Iterations in which the step size adapts; nothing is kept of them.
    pub warmup: u32,
    /// Iterations after that.
    pub iterations: u32,
    /// ε at first; for good where there is no warm-up.
    pub step_size: f64,
    /// The acceptance that the warm-up aims at; 0.8 is usual.
    pub acceptance: f64,
    /// At most 2^depth leapfrog steps an iteration; 10 is usual.
    pub depth: u32,
    /// M.
    pub mass: Mass,
    /// The Gaussian by which log Z is estimated.
    pub fit: Fit,
}

/// How much H may grow before a trajectory counts as lost.
const LOST: f64 = 1000.0;

/// A state of a trajectory.
#[derive(Clone)]
struct Phase {
    point: Points,
    p: Vec<f64>,
}

/// A tree of states.
struct Tree {
    /// The first and the last in time.
    ends: [Phase; 2],
    /// The one taken.
    taken: Points,
    /// log Σ e^{H₀ − H}.
    log_weight: f64,
    /// ρ, the sum of the momenta.
    sum: Vec<f64>,
    /// Whether to stop here.
    over: bool,
    /// Σ min(1, e^{H₀ − H}), and over how many states.
    acceptance: (f64, u64),
}

fn log_sum(a: f64, b: f64) -> f64 {
    let top = a.max(b);
    if top.is_infinite() { top } else { top + ((a - top).exp() + (b - top).exp()).ln() }
}

/// What a trajectory is made of: the law, the leapfrog step, H at its start.
struct Builder<'a> {
    law: Law<'a>,
    kernel: Move<'a>,
    size: f64,
    start: f64,
}

impl Builder<'_> {
    fn turning(&self, sum: &[f64], ends: &[Phase; 2]) -> bool {
        ends.iter().any(|end| {
            sum.iter()
                .zip(&end.p)
                .enumerate()
                .map(|(k, (sum, p))| sum * p / self.kernel.mass.of(k))
                .sum::<f64>()
                <= 0.0
        })
    }

    /// One leapfrog step from a state, to a side.
    fn leaf(&self, from: &Phase, forward: bool) -> Result<Tree> {
        let mut p = from.p.clone();
        let size = if forward { self.size } else { -self.size };
        let point = self.kernel.integrate(&self.law, from.point.clone(), &mut p, &[size])?;
        let energy = self.law.log(&point, 0) - self.kernel.mass.kinetic(&p);
        let found = energy.is_finite();
        // A start without density is no reference: the trajectory goes on until the first state with one, and takes it.
        let (change, over) = match (self.start.is_finite(), found) {
            (true, true) => (energy - self.start, energy - self.start < -LOST),
            (true, false) => (f64::NEG_INFINITY, true),
            (false, true) => (f64::INFINITY, true),
            (false, false) => (f64::NEG_INFINITY, !p.iter().chain(&point.x).all(|v| v.is_finite())),
        };
        let end = Phase { point: point.clone(), p: p.clone() };
        Ok(Tree {
            ends: [end.clone(), end],
            taken: point,
            log_weight: change,
            sum: p,
            over,
            acceptance: (change.exp().min(1.0), 1),
        })
    }

    /// Two trees as one; the second was made later, to a side.
    fn joined(&self, old: Tree, new: Tree, forward: bool, take_new: bool) -> Tree {
        let sum: Vec<f64> = old.sum.iter().zip(&new.sum).map(|(a, b)| a + b).collect();
        let ([old_first, old_last], [new_first, new_last]) = (old.ends, new.ends);
        let ends = if forward { [old_first, new_last] } else { [new_first, old_last] };
        let over = new.over || self.turning(&sum, &ends);
        Tree {
            over,
            ends,
            sum,
            taken: if take_new { new.taken } else { old.taken },
            log_weight: log_sum(old.log_weight, new.log_weight),
            acceptance: (old.acceptance.0 + new.acceptance.0, old.acceptance.1 + new.acceptance.1),
        }
    }

    /// 2^depth states on from a state, to a side.
    fn tree(&self, from: &Phase, forward: bool, depth: u32, draws: &mut Draws) -> Result<Tree> {
        if depth == 0 {
            return self.leaf(from, forward);
        }
        let first = self.tree(from, forward, depth - 1, draws)?;
        if first.over {
            return Ok(first);
        }
        let from = first.ends[usize::from(forward)].clone();
        let second = self.tree(&from, forward, depth - 1, draws)?;
        let share = (second.log_weight - log_sum(first.log_weight, second.log_weight)).exp();
        // A first state with density, from a start without, is taken for certain.
        let take = draws.uniform() < share || second.log_weight == f64::INFINITY;
        Ok(self.joined(first, second, forward, take))
    }
}

impl Nuts {
    fn check(&self, dim: usize) -> Result<()> {
        in_range("step size", self.step_size, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("acceptance to aim at", self.acceptance, 0.01, 0.999)?;
        in_range("depth of a trajectory", f64::from(self.depth), 1.0, 20.0)?;
        self.mass.check(dim)
    }

    /// One iteration of one chain: the acceptance, and how often the target was evaluated.
    fn iterate(&self, law: Law, point: &mut Points, size: f64, draws: &mut Draws) -> Result<(f64, u64)> {
        let p: Vec<f64> = (0..point.dim()).map(|k| self.mass.of(k).sqrt() * draws.normal()).collect();
        let kernel = Move { name: "nuts", steps: 1, adjusted: true, jitter: 0.0, mass: &self.mass };
        let start = law.log(point, 0) - self.mass.kinetic(&p);
        let builder = Builder { law, kernel, size, start };
        let here = Phase { point: point.clone(), p: p.clone() };
        let mut all = Tree {
            ends: [here.clone(), here],
            taken: point.clone(),
            log_weight: 0.0,
            sum: p,
            over: false,
            acceptance: (0.0, 0),
        };
        for depth in 0..self.depth {
            let forward = draws.sign() > 0.0;
            let from = all.ends[usize::from(forward)].clone();
            let new = builder.tree(&from, forward, depth, draws)?;
            if new.over {
                if new.log_weight == f64::INFINITY {
                    all.taken = new.taken;
                }
                all.acceptance.0 += new.acceptance.0;
                all.acceptance.1 += new.acceptance.1;
                break;
            }
            let take = draws.uniform() < (new.log_weight - all.log_weight).exp();
            all = builder.joined(all, new, forward, take);
            if all.over {
                break;
            }
        }
        let (sum, count) = all.acceptance;
        *point = all.taken;
        Ok((sum / count.max(1) as f64, count))
    }

    /// The last state of one chain.
    fn chain(&self, target: &dyn Target, start: &[f64], noise: Noise, chain: u32) -> Result<(Points, u64)> {
        let law = Law::new(target, &self.base)?;
        let mut point = Points::at(target, start.to_vec())?;
        let mut size = DualAveraging::new(self.step_size, self.acceptance);
        let mut evaluations = 1;
        for iteration in 0..self.warmup.saturating_add(self.iterations) {
            let mut draws = noise.draws_at(Stream::Sampler, 0, iteration, chain);
            let warming = iteration < self.warmup;
            // On the way to the support there is no acceptance to learn from.
            let learns = warming && point.value[0].is_finite();
            let own = if warming { size.now() } else { size.kept() };
            let (acceptance, made) = self.iterate(law, &mut point, own, &mut draws)?;
            evaluations += made;
            if learns {
                size.learn(acceptance);
            }
        }
        Ok((point, evaluations))
    }

    fn drawn(&self, target: &dyn Target, samples: usize, noise: Noise) -> Result<Drawn> {
        self.check(target.dim())?;
        Law::new(target, &self.base)?;
        some_samples(samples)?;
        let starts = self.base.start(samples, noise, 0);
        let chains = starts.par_chunks(target.dim()).enumerate();
        let ends = chains
            .map(|(i, start)| self.chain(target, start, noise, i as u32))
            .collect::<Result<Vec<_>>>()?;
        let evaluations = ends.iter().map(|(_, made)| made).sum();
        let mut points =
            Points { x: starts, value: vec![0.0; samples], score: vec![0.0; samples * target.dim()] };
        ends.iter().enumerate().for_each(|(i, (end, _))| points.take(i, end, 0));
        points.arrived("nuts")?;
        finished(target, &points, self.fit, noise, evaluations)
    }
}

impl TargetSampler for Nuts {
    fn name(&self) -> String {
        "nuts".into()
    }

    fn draw(&self, target: &dyn Target, samples: usize, noise: Noise) -> sde_core::Result<Drawn> {
        self.drawn(target, samples, noise).map_err(Error::into_core)
    }
}
