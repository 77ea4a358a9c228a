//! Annealing from a Gaussian to the target: annealed importance sampling, and with resampling sequential Monte Carlo.
//!
//! ```text
//! π_k ∝ π₀^{1−β_k} μ̂^{β_k}        log w ← log w + (β_k − β_{k−1}) (log μ̂ − log π₀)(x)        x moves, leaving π_k invariant
//! log Ẑ = log mean w        resampled: log Ẑ = Σ_k log Σ_i W_i w_{k,i}
//! ```
//!
//! E\[Ẑ\] = Z exactly, for any number of levels and moves, if temperatures and step sizes do not depend on the particles: where they are to be found, a *pilot* run
//! of its own noise finds them, and the run keeps them.
//!
//! Reference: Neal 2001, arXiv physics/9803008 (AIS); Del Moral, Doucet, Jasra 2006, "Sequential Monte Carlo samplers", doi 10.1111/j.1467-9868.2006.00553.x,
//! section 3; temperatures by conditional ESS: Zhou, Johansen, Aston 2016, arXiv 1303.3123, eq. 21.

use sde_core::Target;
use sde_core::noise::{Noise, Stream};
use sde_core::target::{Drawn, LogWeights, TargetSampler};

use super::law::{Base, Law, Points, some_samples};
use super::trajectory::{At, Mass, Move};
use crate::error::in_range;
use crate::{Error, Result};

/// The levels β.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Temperatures {
    /// β_k = k/n, k = 1 … n.
    Linear(u32),
    /// These, rising, in (0, 1], the last of them 1.
    Given(Vec<f64>),
    /// Each as far on as leaves this share of the conditional effective sample size, found by the pilot.
    Adaptive(f64),
}

/// ε of the moves.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum StepSize {
    /// The same at every level.
    Fixed(f64),
    /// One a level: the pilot begins with the first, and aims at an acceptance.
    Adaptive {
        /// ε at first.
        first: f64,
        /// The acceptance to aim at.
        acceptance: f64,
    },
}

/// When particles are resampled.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Resampling {
    /// Never: annealed importance sampling.
    Never,
    /// When the effective share falls below this: sequential Monte Carlo.
    Below(f64),
}

/// Annealed importance sampling or sequential Monte Carlo with Hamiltonian moves (Langevin's, with one leapfrog step).
#[derive(Debug, Clone, PartialEq)]
pub struct Annealed {
    /// π₀.
    pub base: Base,
    /// The levels.
    pub temperatures: Temperatures,
    /// Moves a level.
    pub moves: u32,
    /// L, the leapfrog steps of a move.
    pub steps: usize,
    /// ε.
    pub step_size: StepSize,
    /// M.
    pub mass: Mass,
    /// When particles are resampled.
    pub resampling: Resampling,
    /// Particles of the pilot run; what it costs counts.
    pub pilot: usize,
}

/// β and ε of every level.
#[derive(Debug, Clone, Default)]
struct Plan {
    levels: Vec<(f64, f64)>,
}

/// Particles with the logarithms of their weights.
struct Cloud {
    points: Points,
    logs: Vec<f64>,
    evaluations: u64,
    /// The smallest effective share before a resampling.
    lowest_share: Option<f64>,
}

/// What the sites of a run's noise are for; those of a pilot lie behind them.
const MOVES: u32 = 0;
const RESAMPLING: u32 = 1;
const PILOT: u32 = 16;
/// More levels than these the pilot does not make.
const MOST_LEVELS: usize = 100_000;

impl Annealed {
    fn check(&self, dim: usize) -> Result<()> {
        match &self.temperatures {
            Temperatures::Linear(n) => {
                in_range("levels", f64::from(*n), 1.0, MOST_LEVELS as f64).map(|_| ())?
            }
            Temperatures::Adaptive(share) => {
                in_range("share of effective samples", *share, 0.01, 0.9999).map(|_| ())?
            }
            Temperatures::Given(levels) => {
                in_range("number of levels given", levels.len() as f64, 1.0, MOST_LEVELS as f64)?;
                let rising = levels.windows(2).all(|pair| pair[0] < pair[1]);
                let ends = levels.first().is_some_and(|&b| b > 0.0) && levels.last() == Some(&1.0);
                if !(rising && ends) {
                    let (expected, found) =
                        ("rising numbers in (0, 1] that end with 1".into(), format!("{levels:?}"));
                    return Err(
                        sde_core::Error::Mismatch { what: "levels of annealing", expected, found }.into()
                    );
                }
            }
        }
        let (first, acceptance) = match self.step_size {
            StepSize::Fixed(size) => (size, 0.5),
            StepSize::Adaptive { first, acceptance } => (first, acceptance),
        };
        in_range("step size", first, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("acceptance to aim at", acceptance, 0.01, 0.999)?;
        in_range("leapfrog steps", self.steps as f64, 1.0, 1e9)?;
        // Their product is the address of a move, of 32 bits.
        in_range("moves a level", f64::from(self.moves), 1.0, f64::from(u32::MAX / MOST_LEVELS as u32))?;
        if let Resampling::Below(share) = self.resampling {
            in_range("effective share to resample below", share, f64::MIN_POSITIVE, 1.0)?;
        }
        if self.needs_pilot() {
            in_range("particles of the pilot run", self.pilot as f64, 8.0, 1e9)?;
        }
        self.mass.check(dim)
    }

    fn needs_pilot(&self) -> bool {
        matches!(self.temperatures, Temperatures::Adaptive(_))
            || matches!(self.step_size, StepSize::Adaptive { .. })
    }

    /// The level after β, for a cloud.
    fn next(&self, level: usize, beta: f64, logs: &[f64], ratios: &[f64]) -> f64 {
        match &self.temperatures {
            Temperatures::Linear(n) => (level as f64 + 1.0) / f64::from(*n),
            Temperatures::Given(levels) => levels.get(level).copied().unwrap_or(1.0),
            Temperatures::Adaptive(share) => {
                let enough = |next: f64| conditional_share(logs, ratios, next - beta) >= *share;
                if enough(1.0) {
                    return 1.0;
                }
                let (mut low, mut high) = (beta, 1.0);
                for _ in 0..60 {
                    let middle = 0.5 * (low + high);
                    if enough(middle) { low = middle } else { high = middle }
                }
                // Never stands still, however fast the weights degenerate.
                low.max(beta + 1e-9).min(1.0)
            }
        }
    }

    /// One run; without a plan it makes one, adapting as it goes.
    fn run(&self, law: &Law, particles: usize, plan: Option<&Plan>, noise: Noise) -> Result<(Cloud, Plan)> {
        let sites = if plan.is_some() { 0 } else { PILOT };
        let points = Points::at(law.target, self.base.start(particles, noise, sites))?;
        let mut cloud =
            Cloud { points, logs: vec![0.0; particles], evaluations: particles as u64, lowest_share: None };
        let mut made = Plan::default();
        let (mut size, goal) = match self.step_size {
            StepSize::Fixed(size) => (size, None),
            StepSize::Adaptive { first, acceptance } => (first, Some(acceptance)),
        };
        let (mut beta, mut level) = (0.0, 0);
        while beta < 1.0 {
            if level == MOST_LEVELS {
                return Err(Error::Levels { beta });
            }
            let ratios: Vec<f64> = (0..particles).map(|i| law.ratio(&cloud.points, i)).collect();
            let next = match plan {
                Some(plan) => plan.levels[level].0,
                None => self.next(level, beta, &cloud.logs, &ratios),
            };
            cloud.logs.iter_mut().zip(&ratios).for_each(|(log, ratio)| *log += (next - beta) * ratio);
            beta = next;
            // What weighs nothing never will: levels after this one would end in the same place.
            if cloud.logs.iter().all(|log| *log == f64::NEG_INFINITY) {
                return Err(Error::NoWeight { beta });
            }
            let law = Law { beta, ..*law };
            self.resample(&mut cloud, noise, sites + RESAMPLING, level)?;
            if let Some(plan) = plan {
                size = plan.levels[level].1;
            }
            let kernel =
                Move { name: "annealing", steps: self.steps, adjusted: true, jitter: 0.0, mass: &self.mass };
            for i in 0..self.moves {
                let iteration = level as u32 * self.moves + i;
                let at = At { noise, site: sites + MOVES, iteration };
                let rates = kernel.apply(&law, &mut cloud.points, &vec![size; particles], at)?;
                if let (Some(goal), None) = (goal, plan) {
                    let mean = rates.iter().sum::<f64>() / particles as f64;
                    size *= (mean - goal).exp();
                }
            }
            cloud.evaluations += particles as u64 * u64::from(self.moves) * self.steps as u64;
            made.levels.push((beta, size));
            level += 1;
        }
        Ok((cloud, made))
    }

    /// Equal particles where the weights have become too unequal; their common weight holds what has become of Z.
    fn resample(&self, cloud: &mut Cloud, noise: Noise, site: u32, level: usize) -> Result<()> {
        let Resampling::Below(share) = self.resampling else { return Ok(()) };
        let weights = LogWeights::new(cloud.logs.clone())?;
        let found = weights.effective_share();
        if found >= share {
            return Ok(());
        }
        cloud.lowest_share = Some(cloud.lowest_share.map_or(found, |lowest| lowest.min(found)));
        let mut draws = noise.draws_at(Stream::Sampler, site, level as u32, 0);
        let before = cloud.points.clone();
        let chosen = weights.resample(before.len(), &mut draws);
        chosen.iter().enumerate().for_each(|(i, &j)| cloud.points.take(i, &before, j));
        cloud.logs.fill(weights.log_mean().value);
        Ok(())
    }

    fn drawn(&self, target: &dyn Target, samples: usize, noise: Noise) -> Result<Drawn> {
        self.check(target.dim())?;
        let law = Law::new(target, &self.base)?;
        some_samples(samples)?;
        let (plan, spent) = if self.needs_pilot() {
            let (cloud, plan) = self.run(&law, self.pilot, None, noise)?;
            (plan, cloud.evaluations)
        } else {
            (self.fixed_plan(), 0)
        };
        let (cloud, _) = self.run(&law, samples, Some(&plan), noise)?;
        let weights = LogWeights::new(cloud.logs)?;
        let bound = weights.logs().iter().sum::<f64>() / samples as f64;
        let never = matches!(self.resampling, Resampling::Never);
        Ok(Drawn {
            samples: cloud.points.tensor()?,
            log_normaliser: Some(weights.log_mean().value),
            // By Jensen's inequality, for independent weights.
            bound: (never && bound.is_finite()).then_some(bound),
            weights: Some(weights),
            lowest_share: cloud.lowest_share,
            evaluations: cloud.evaluations + spent,
        })
    }

    /// The plan that needs no pilot.
    fn fixed_plan(&self) -> Plan {
        let size = match self.step_size {
            StepSize::Fixed(size) | StepSize::Adaptive { first: size, .. } => size,
        };
        let mut levels = Vec::new();
        let mut beta = 0.0;
        while beta < 1.0 {
            beta = self.next(levels.len(), beta, &[], &[]);
            levels.push((beta, size));
        }
        Plan { levels }
    }
}

/// (Σ W w)² / Σ W w² of weights w = e^{δ·ratio} under normalised weights W.
fn conditional_share(logs: &[f64], ratios: &[f64], delta: f64) -> f64 {
    let top = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
    let high = top(&mut logs.iter().copied());
    let steep = top(&mut ratios.iter().map(|r| delta * r));
    let (mut total, mut first, mut second) = (0.0, 0.0, 0.0);
    for (log, ratio) in logs.iter().zip(ratios) {
        let (old, new) = ((log - high).exp(), (delta * ratio - steep).exp());
        total += old;
        first += old * new;
        second += old * new * new;
    }
    if second > 0.0 { first * first / (total * second) } else { 0.0 }
}

impl TargetSampler for Annealed {
    fn name(&self) -> String {
        match self.resampling {
            Resampling::Never => "ais".into(),
            Resampling::Below(_) => "smc".into(),
        }
    }

    fn draw(&self, target: &dyn Target, samples: usize, noise: Noise) -> sde_core::Result<Drawn> {
        self.drawn(target, samples, noise).map_err(Error::into_core)
    }
}
