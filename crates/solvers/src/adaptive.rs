//! Embedded Runge–Kutta pairs with error control of its own for each sample.
//!
//! `y' = y + h Σ b_i k_i`, `k_i = f(t + c_i h, y + h Σ_j a_ij k_j)`, the error `h Σ e_i k_i` measured in the root mean square of
//! `error / (atol + rtol max(|y|, |y'|))`. The coefficients are data ([`Pair`]), and so is the rule for the next step ([`Control`]).
//!
//! Each sample has its own time, step and stages; those that are done leave the batch, so a sample's result does not depend on its company:
//! it neither waits nor changes.
//!
//! The state and the stages live on the host in f64; only the right-hand side runs on the device.
//!
//! Reference: Hairer, Nørsett, Wanner 1993, section II.4, for the control and the first step.
//! Differs: error norms and steps per sample, where the usual solvers take one norm over the batch.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use sde_core::noise::host_tensor;

use crate::error::in_range;
use crate::{Error, Result};

mod control;
mod pair;

pub use control::Control;
pub(crate) use control::Memory;
pub use pair::Pair;

/// A system of ordinary differential equations, one for each sample of a batch.
pub trait Ode {
    /// dy/dt.
    ///
    /// # Shapes
    /// `y` `[b, n]` holds the samples still under way, `t` a time for each, `samples` their places in the original batch; the result is
    /// `[b, n]`.
    fn rhs(&self, y: &Tensor, t: &[f64], samples: &[usize]) -> sde_core::Result<Tensor>;
}

/// The solver: its pair, its control, its tolerances and limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    /// The formulas.
    pub pair: Pair,
    /// The rule for the next step.
    pub control: Control,
    /// Error allowed relative to the state.
    pub rtol: f64,
    /// Error allowed besides.
    pub atol: f64,
    /// A sample that needs a smaller step stops; 0 leaves it at ten times the spacing of floating-point numbers.
    pub min_step: f64,
    /// A sample that has used this many evaluations stops.
    pub max_nfe: usize,
    /// The first step; `None` chooses it from the first two evaluations.
    pub first_step: Option<f64>,
}

/// How the solve of one sample ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It arrived.
    Finished,
    /// It needed a step smaller than the smallest.
    StepTooSmall,
    /// It used all the evaluations it was allowed.
    NfeCap,
    /// The right-hand side is not finite.
    NonFinite,
}

/// The solve of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// The time reached: the end, or where it stopped.
    pub t: f64,
    /// Evaluations of the right-hand side.
    pub nfe: usize,
    /// Steps accepted.
    pub accepted: usize,
    /// Steps rejected.
    pub rejected: usize,
    /// How it ended.
    pub outcome: Outcome,
}

/// The states reached, with a report for each sample; where the outcome is not `Finished` the state is the partial result.
#[derive(Debug, Clone)]
pub struct AdaptiveSolution {
    /// `[B, n]`.
    pub y: Tensor,
    /// One for each sample.
    pub reports: Vec<Report>,
}

impl AdaptiveSolution {
    /// The samples that did not arrive.
    pub fn unfinished(&self) -> impl Iterator<Item = (usize, &Report)> {
        self.reports.iter().enumerate().filter(|(_, r)| r.outcome != Outcome::Finished)
    }
}

/// One sample under way.
struct Lane {
    sample: usize,
    y: Vec<f64>,
    stages: Vec<Vec<f64>>,
    h: f64,
    memory: Memory,
    /// The error of the last attempt was not a number.
    failed: bool,
    report: Report,
}

impl Adaptive {
    /// Dormand–Prince 5(4) with the elementary control, and the usual limits: 100 000 evaluations, no smallest step but rounding's.
    pub const fn new(rtol: f64, atol: f64) -> Self {
        let (pair, control) = (Pair::DORMAND_PRINCE, Control::Elementary);
        Self { pair, control, rtol, atol, min_step: 0.0, max_nfe: 100_000, first_step: None }
    }

    /// Integrates each row of `y` from `from` to `to` (either may be larger).
    ///
    /// # Shapes
    /// `y` `[B, n]`; the solution has its shape and type.
    ///
    /// # Errors
    /// For tolerances or limits that make no sense, and whatever the right-hand side returns. A sample that cannot be finished is not
    /// an error: its report says so.
    pub fn integrate(&self, ode: &dyn Ode, y: &Tensor, from: f64, to: f64) -> Result<AdaptiveSolution> {
        self.check(from, to)?;
        self.control.check()?;
        let (batch, _) = y.dims2()?;
        let rows = y.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.to_vec2::<f64>()?;
        let mut done: Vec<Option<Lane>> = (0..batch).map(|_| None).collect();
        let mut active: Vec<Lane> = rows
            .into_iter()
            .enumerate()
            .map(|(i, row)| Lane::new(i, row, from, self.pair.stages()))
            .collect();
        let host = Rhs { ode, like: y };
        if from != to {
            self.start(&host, &mut active, from, to)?;
        }
        loop {
            let (under_way, finished) = active.into_iter().partition(|lane| !self.is_over(lane, to));
            active = under_way;
            for mut lane in finished {
                lane.close(to, self.max_nfe);
                let sample = lane.sample;
                done[sample] = Some(lane);
            }
            if active.is_empty() {
                break;
            }
            self.step(&host, &mut active, to)?;
        }
        let lanes: Vec<Lane> = done.into_iter().flatten().collect();
        let states: Vec<f64> = lanes.iter().flat_map(|lane| lane.y.iter().copied()).collect();
        Ok(AdaptiveSolution {
            y: host_tensor(states, y.dims(), y.dtype(), y.device())?,
            reports: lanes.into_iter().map(|lane| lane.report).collect(),
        })
    }

    fn check(&self, from: f64, to: f64) -> Result<()> {
        in_range("rtol", self.rtol, 1e-15, 1.0)?;
        in_range("atol", self.atol, 0.0, f64::MAX)?;
        in_range("min_step", self.min_step, 0.0, f64::MAX)?;
        in_range("max_nfe", self.max_nfe as f64, 1.0, f64::MAX)?;
        in_range("first_step", self.first_step.unwrap_or(1.0), f64::MIN_POSITIVE, f64::MAX)?;
        for end in [from, to] {
            if !end.is_finite() {
                return Err(Error::Core(sde_core::Error::NonFinite {
                    what: "an end of the interval of integration".into(),
                    found: end,
                }));
            }
        }
        Ok(())
    }

    /// First stages and first steps.
    fn start(&self, rhs: &Rhs<'_>, lanes: &mut [Lane], from: f64, to: f64) -> Result<()> {
        let direction = (to - from).signum();
        rhs.fill(lanes, 0, |lane| (from, lane.y.clone()))?;
        if let Some(first) = self.first_step {
            lanes.iter_mut().for_each(|lane| lane.h = direction * first);
            return Ok(());
        }
        // Hairer's guess: a small explicit step measures how fast the right-hand side changes.
        let guess = |lane: &Lane| {
            let d0 = self.norm(&lane.y, &lane.y, &lane.y);
            let d1 = self.norm(&lane.stages[0], &lane.y, &lane.y);
            if d0 < 1e-5 || d1 < 1e-5 { 1e-6 } else { 0.01 * d0 / d1 }
        };
        let span = (to - from).abs();
        rhs.fill(lanes, 1, |lane| {
            let h = direction * guess(lane).min(span);
            (from + h, combine(&lane.y, h, &[(1.0, &lane.stages[0])]))
        })?;
        for lane in lanes.iter_mut() {
            let h0 = guess(lane).min(span);
            let difference = combine(&lane.stages[1], -1.0, &[(1.0, &lane.stages[0])]);
            let d1 = self.norm(&lane.stages[0], &lane.y, &lane.y);
            let d2 = self.norm(&difference, &lane.y, &lane.y) / h0;
            let slope = d1.max(d2);
            let h1 = if slope <= 1e-15 {
                (1e-3 * h0).max(1e-6)
            } else {
                (0.01 / slope).powf(self.pair.exponent())
            };
            lane.h = direction * (100.0 * h0).min(h1).min(span);
        }
        Ok(())
    }

    /// One attempted step of every active sample.
    fn step(&self, rhs: &Rhs<'_>, lanes: &mut [Lane], to: f64) -> Result<()> {
        for lane in lanes.iter_mut() {
            let left = to - lane.report.t;
            if lane.h.abs() >= left.abs() {
                lane.h = left;
            }
        }
        for stage in 1..self.pair.stages() {
            let (row, node) = (self.pair.row(stage), self.pair.node(stage));
            rhs.fill(lanes, stage, |lane| (lane.report.t + node * lane.h, lane.moved(row)))?;
        }
        lanes.par_iter_mut().for_each(|lane| self.decide(lane, to));
        Ok(())
    }

    /// Accepts or rejects the step just computed, and chooses the next.
    fn decide(&self, lane: &mut Lane, to: f64) {
        let next = lane.moved(self.pair.weights());
        let zero = vec![0.0; next.len()];
        let error = self.norm(&combine(&zero, lane.h, &lane.terms(self.pair.error())), &lane.y, &next);
        lane.failed = !error.is_finite();
        if error < 1.0 {
            let arrived = lane.h == to - lane.report.t;
            lane.report.t = if arrived { to } else { lane.report.t + lane.h };
            lane.report.accepted += 1;
            lane.y = next;
            let last = lane.stages.len() - 1;
            lane.stages.swap(0, last);
            lane.h *= self.control.accept(error, self.pair.exponent(), &mut lane.memory);
        } else {
            lane.report.rejected += 1;
            lane.h *= self.control.reject(error, self.pair.exponent(), &mut lane.memory);
        }
    }

    fn is_over(&self, lane: &Lane, to: f64) -> bool {
        let t = lane.report.t;
        let smallest = self.min_step.max(10.0 * (t.next_up() - t).abs());
        let last = (to - t).abs() <= lane.h.abs();
        t == to
            || lane.stages[0].iter().any(|k| !k.is_finite())
            || lane.report.nfe >= self.max_nfe
            || (lane.h.abs() < smallest && !last)
    }

    fn norm(&self, x: &[f64], a: &[f64], b: &[f64]) -> f64 {
        let scaled = x.iter().zip(a.iter().zip(b)).map(|(x, (a, b))| {
            let ratio = x / (self.atol + self.rtol * a.abs().max(b.abs()));
            // 0/0 where state and error both vanish and atol is 0.
            if *x == 0.0 { 0.0 } else { ratio * ratio }
        });
        (scaled.sum::<f64>() / x.len().max(1) as f64).sqrt()
    }
}

impl Lane {
    fn new(sample: usize, y: Vec<f64>, t: f64, stages: usize) -> Self {
        let report = Report { t, nfe: 0, accepted: 0, rejected: 0, outcome: Outcome::Finished };
        let stages = vec![vec![0.0; y.len()]; stages];
        Self { sample, y, stages, h: 0.0, memory: Memory::EMPTY, failed: false, report }
    }

    fn terms(&self, coefficients: &[f64]) -> Vec<(f64, &Vec<f64>)> {
        coefficients.iter().copied().zip(&self.stages).collect()
    }

    /// `y + h Σ c_j k_j`.
    fn moved(&self, coefficients: &[f64]) -> Vec<f64> {
        combine(&self.y, self.h, &self.terms(coefficients))
    }

    /// Writes down how it ended.
    fn close(&mut self, to: f64, max_nfe: usize) {
        let finite = self.stages[0].iter().all(|k| k.is_finite());
        self.report.outcome = if self.report.t == to {
            Outcome::Finished
        } else if !finite || self.failed {
            Outcome::NonFinite
        } else if self.report.nfe >= max_nfe {
            Outcome::NfeCap
        } else {
            Outcome::StepTooSmall
        };
    }
}

/// `y + h Σ c_j k_j`, summed in a fixed order.
fn combine(y: &[f64], h: f64, terms: &[(f64, &Vec<f64>)]) -> Vec<f64> {
    let sum = |i: usize| terms.iter().filter(|(c, _)| *c != 0.0).map(|(c, k)| c * k[i]).sum::<f64>();
    y.iter().enumerate().map(|(i, y)| y + h * sum(i)).collect()
}

/// The right-hand side, called with host states.
struct Rhs<'a> {
    ode: &'a dyn Ode,
    like: &'a Tensor,
}

impl Rhs<'_> {
    /// Evaluates at the point that `at` gives for each lane, and stores the result as stage `stage`.
    fn fill(
        &self,
        lanes: &mut [Lane],
        stage: usize,
        at: impl Fn(&Lane) -> (f64, Vec<f64>) + Sync,
    ) -> Result<()> {
        let points: Vec<(f64, Vec<f64>)> = lanes.par_iter().map(&at).collect();
        let width = lanes.first().map_or(0, |lane| lane.y.len());
        let (times, states): (Vec<f64>, Vec<Vec<f64>>) = points.into_iter().unzip();
        let samples: Vec<usize> = lanes.iter().map(|lane| lane.sample).collect();
        let dims = [lanes.len(), width];
        let y = host_tensor(states.concat(), &dims, self.like.dtype(), self.like.device())?;
        let value = self.ode.rhs(&y, &times, &samples)?;
        if value.dims() != dims {
            return Err(Error::Core(sde_core::Error::Mismatch {
                what: "shape of a right-hand side",
                expected: format!("{dims:?}"),
                found: format!("{:?}", value.dims()),
            }));
        }
        let rows = value.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.to_vec2::<f64>()?;
        for (lane, row) in lanes.iter_mut().zip(rows) {
            lane.stages[stage] = row;
            lane.report.nfe += 1;
        }
        Ok(())
    }
}
