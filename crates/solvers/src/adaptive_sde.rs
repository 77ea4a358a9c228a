//! The λ-family of reverse SDEs with a step of its own for each sample,
//!
//! `du = [F u − ½(1 + λ²) G Gᵀ s] dt + λ G dw̄`, from noise to data.
//!
//! With f the drift, h = t − t' and ΔW the increment of the sample's own path: `u' = u − h f(u, t) + λ G ΔW` (Euler–Maruyama), `ũ = u − h f(u', t') + λ G' ΔW`, and
//! `u'' = ½ (u' + ũ)` (stochastic Heun). The error is u' − u'', scaled by `max(atol, rtol max(|u'|, |u'| of the step before))`; u'' is kept. A rejected step keeps
//! its end on the path ([`crate::brownian`]), so that rejections do not bias the law, and its first evaluation.
//!
//! λ = 0 is an adaptive Heun method for the probability flow. A sample that has arrived leaves the batch. The normals of attempt k are those of
//! step k of the noise, so a sample does not depend on its company.
//!
//! Reference: Jolicoeur-Martineau, Li, Piché-Taillefer, Kachman, Mitliagkas 2021, arXiv 2105.14080, Algorithm 1 (θ = 0.9, r = 0.9).
//! Differs: a Brownian path instead of fresh noise after a rejection; the norm is a root mean square as there, steps grow at most fivefold.

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{NormalSource, host_tensor};
use sde_core::{Converted, Field, Prediction};

use crate::adaptive::{Outcome, Report};
use crate::brownian::BrownianPath;
use crate::error::in_range;
use crate::sampler::{Path, Sampler, Solution};
use crate::{Error, Result};

const SAFETY: f64 = 0.9;
const EXPONENT: f64 = -0.9;
const GROW: f64 = 5.0;
const SHRINK: f64 = 0.1;
/// The first step, as a part of the way.
const FIRST: f64 = 0.01;

/// An adaptive solver of the reverse SDE.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveSde {
    /// 0: the probability flow; 1: the reverse SDE.
    pub lambda: f64,
    /// Error allowed relative to the state.
    pub rtol: f64,
    /// Error allowed at least.
    pub atol: f64,
    /// A sample that has used this many evaluations stops.
    pub max_nfe: usize,
}

impl AdaptiveSde {
    /// The published tolerances for images in [−1, 1], 0.02 and two levels of 256, on the reverse SDE.
    pub const PUBLISHED: Self = Self { lambda: 1.0, rtol: 0.02, atol: 2.0 / 256.0, max_nfe: 100_000 };
}

/// One sample under way.
struct Lane {
    sample: usize,
    u: Vec<f64>,
    /// u' of the step before.
    before: Vec<f64>,
    path: BrownianPath,
    /// The drift at (u, t), once it is known.
    drift: Option<Vec<f64>>,
    /// u' and the noise of the attempt under way.
    euler: Vec<f64>,
    increment: Vec<f64>,
    h: f64,
    /// The last error was not a number.
    failed: bool,
    report: Report,
}

impl Sampler for AdaptiveSde {
    /// # Errors
    /// Besides the field's: [`Error::Unfinished`] for a sample that needs too many evaluations or too small a step.
    fn sample(&self, path: &Path<'_>, x: &Tensor, noise: &dyn NormalSource) -> Result<Solution> {
        in_range("lambda", self.lambda, 0.0, 100.0)?;
        in_range("rtol", self.rtol, 1e-12, 1.0)?;
        in_range("atol", self.atol, 1e-12, f64::MAX)?;
        in_range("max_nfe", self.max_nfe as f64, 1.0, f64::MAX)?;
        sde_core::grid::require_signal(path.sde, path.grid.start(), "the reverse SDE")?;
        let (from, to) = (path.grid.start(), path.grid.stop());
        let rows = host_rows(x)?;
        let mut done: Vec<Option<Lane>> = rows.iter().map(|_| None).collect();
        let mut active: Vec<Lane> =
            rows.into_iter().enumerate().map(|(i, u)| Lane::new(i, u, from, FIRST * (from - to))).collect();
        let way = Way { solver: *self, path, like: x, to, from };
        for attempt in 0.. {
            way.attempt(&mut active, &host_rows(&noise.normal(attempt, x)?)?)?;
            let (arrived, under_way): (Vec<Lane>, Vec<Lane>) =
                active.into_iter().partition(|lane| lane.report.t == to);
            for lane in arrived {
                let sample = lane.sample;
                done[sample] = Some(lane);
            }
            active = under_way;
            if active.is_empty() {
                break;
            }
            if let Some(lane) = active.iter().find(|lane| way.is_stuck(lane)) {
                return Err(Error::Unfinished { sample: lane.sample, report: way.verdict(lane) });
            }
        }
        let lanes: Vec<Lane> = done.into_iter().flatten().collect();
        let states: Vec<f64> = lanes.iter().flat_map(|lane| lane.u.iter().copied()).collect();
        Ok(Solution {
            x: host_tensor(states, x.dims(), x.dtype(), x.device())?,
            nfe: lanes.iter().map(|lane| lane.report.nfe).collect(),
        })
    }
}

impl Lane {
    fn new(sample: usize, u: Vec<f64>, t: f64, h: f64) -> Self {
        let report = Report { t, nfe: 0, accepted: 0, rejected: 0, outcome: Outcome::Finished };
        let path = BrownianPath::new(u.len());
        let (euler, increment) = (Vec::new(), Vec::new());
        Self { sample, before: u.clone(), u, path, drift: None, euler, increment, h, failed: false, report }
    }
}

/// What does not change on the way.
struct Way<'a> {
    solver: AdaptiveSde,
    path: &'a Path<'a>,
    like: &'a Tensor,
    from: f64,
    to: f64,
}

impl Way<'_> {
    /// Where the attempt of a lane ends.
    fn end(&self, lane: &Lane) -> f64 {
        if lane.h >= lane.report.t - self.to { self.to } else { lane.report.t - lane.h }
    }

    /// One attempted step of every sample under way; `normals` has a row for each sample of the batch.
    fn attempt(&self, lanes: &mut [Lane], normals: &[Vec<f64>]) -> Result<()> {
        let mut fresh: Vec<&mut Lane> = lanes.iter_mut().filter(|lane| lane.drift.is_none()).collect();
        let points: Vec<(f64, Vec<f64>)> = fresh.iter().map(|lane| (lane.report.t, lane.u.clone())).collect();
        let drifts = self.drifts(&fresh.iter().map(|lane| lane.sample).collect::<Vec<_>>(), points)?;
        for (lane, drift) in fresh.iter_mut().zip(drifts) {
            lane.drift = Some(drift);
            lane.report.nfe += 1;
        }
        lanes.iter_mut().try_for_each(|lane| self.euler(lane, &normals[lane.sample]))?;
        let samples: Vec<usize> = lanes.iter().map(|lane| lane.sample).collect();
        let points = lanes.iter().map(|lane| (self.end(lane), lane.euler.clone())).collect();
        let drifts = self.drifts(&samples, points)?;
        for (lane, drift) in lanes.iter_mut().zip(drifts) {
            lane.report.nfe += 1;
            self.decide(lane, &drift)?;
        }
        Ok(())
    }

    /// The drift at a point of each of `samples`.
    fn drifts(&self, samples: &[usize], points: Vec<(f64, Vec<f64>)>) -> Result<Vec<Vec<f64>>> {
        if samples.is_empty() {
            return Ok(Vec::new());
        }
        let Path { sde, field, .. } = *self.path;
        let (times, states): (Vec<f64>, Vec<Vec<f64>>) = points.into_iter().unzip();
        let mut dims = self.like.dims().to_vec();
        dims[0] = samples.len();
        let u = host_tensor(states.concat(), &dims, self.like.dtype(), self.like.device())?;
        let restricted = field.restrict(samples)?;
        let score = Converted::new(restricted.as_deref().unwrap_or(field), sde, Prediction::Score);
        let scores = host_rows(&score.eval(&u, &times)?)?;
        let weight = 0.5 * (1.0 + self.solver.lambda.powi(2));
        let drift = |((t, u), s): ((&f64, &Vec<f64>), &Vec<f64>)| -> Result<Vec<f64>> {
            let (linear, spread) = (sde.drift(*t).apply_host(u)?, sde.diffusion(*t).apply_host(s)?);
            Ok(linear.iter().zip(spread).map(|(f, s)| f - weight * s).collect())
        };
        times.iter().zip(&states).zip(&scores).map(drift).collect()
    }

    /// u', by Euler–Maruyama.
    fn euler(&self, lane: &mut Lane, normal: &[f64]) -> Result<()> {
        let (t, end) = (lane.report.t, self.end(lane));
        lane.increment = lane.path.increment(self.from - end, normal);
        let noise = self.noise(t, &lane.increment)?;
        let drift = lane.drift.iter().flatten();
        lane.euler = lane.u.iter().zip(drift).zip(noise).map(|((u, f), n)| u - (t - end) * f + n).collect();
        Ok(())
    }

    /// λ G ΔW at t.
    fn noise(&self, t: f64, increment: &[f64]) -> Result<Vec<f64>> {
        Ok(self.path.sde.diffusion(t).sqrt()?.scale(self.solver.lambda).apply_host(increment)?)
    }

    /// Accepts or rejects, and chooses the next step.
    fn decide(&self, lane: &mut Lane, drift: &[f64]) -> Result<()> {
        let (t, end) = (lane.report.t, self.end(lane));
        let noise = self.noise(end, &lane.increment)?;
        let improved = |i: usize| 0.5 * (lane.euler[i] + lane.u[i] - (t - end) * drift[i] + noise[i]);
        let next: Vec<f64> = (0..lane.u.len()).map(improved).collect();
        let scaled = |i: usize| {
            let size = lane.euler[i].abs().max(lane.before[i].abs());
            ((lane.euler[i] - next[i]) / self.solver.atol.max(self.solver.rtol * size)).powi(2)
        };
        let error = ((0..next.len()).map(scaled).sum::<f64>() / next.len().max(1) as f64).sqrt();
        lane.failed = !error.is_finite();
        let factor = if error.is_finite() { SAFETY * error.powf(EXPONENT) } else { SHRINK };
        lane.h = (t - end) * factor.clamp(SHRINK, GROW);
        if error <= 1.0 {
            lane.path.advance(self.from - end);
            lane.before = std::mem::take(&mut lane.euler);
            lane.u = next;
            lane.drift = None;
            lane.report.t = end;
            lane.report.accepted += 1;
        } else {
            lane.report.rejected += 1;
        }
        Ok(())
    }

    fn is_stuck(&self, lane: &Lane) -> bool {
        lane.report.nfe >= self.solver.max_nfe || lane.h < self.smallest(lane)
    }

    fn smallest(&self, lane: &Lane) -> f64 {
        10.0 * (lane.report.t.next_up() - lane.report.t)
    }

    /// The report of a lane that is given up.
    fn verdict(&self, lane: &Lane) -> Report {
        let outcome = if lane.report.nfe >= self.solver.max_nfe {
            Outcome::NfeCap
        } else if lane.failed {
            Outcome::NonFinite
        } else {
            Outcome::StepTooSmall
        };
        Report { outcome, ..lane.report }
    }
}

fn host_rows(x: &Tensor) -> Result<Vec<Vec<f64>>> {
    Ok(x.flatten_from(1)?.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.to_vec2()?)
}
