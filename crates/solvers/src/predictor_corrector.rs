//! Predictor–corrector sampling: before each step of a one-step table, M steps of Langevin dynamics at the step's time,
//! `x ← x + δ s + √(2δ) z`, `δ = 2 a (r ‖z‖/‖s‖)²`, s the score, r the signal-to-noise ratio, a = A² for a process with a published chain, 1 for
//! the others.
//!
//! Draws of noise: step i of the table has the numbers from i (M + 1); its correctors take the first M, its predictor the last.
//!
//! Reference: Song et al. 2021, arXiv 2011.13456, algorithms 2–5; corrector before predictor, as in the authors' code.
//! Differs: the norms are each sample's, so that a sample does not depend on its batch; [`Norms::Batch`] takes their means over
//! the batch, as published. a is 1 for sub-VP, for which the authors' code has none.

use candle_core::{DType, Tensor};
use sde_core::noise::{NormalSource, host_tensor};
use sde_core::{Converted, Field, Op, Prediction, combine};

use crate::error::in_range;
use crate::sampler::{Path, Sampler, Solution};
use crate::table::{Multistep, Table, Update, chain_step};
use crate::{Error, Result};

/// Whose norms set the step of the corrector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Each sample's own.
    Sample,
    /// Their means over the batch, as published: a sample then depends on its batch.
    Batch,
}

/// A Langevin corrector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Langevin {
    /// r, the signal-to-noise ratio; 0.16 is published for images.
    pub snr: f64,
    /// M, the steps at each time.
    pub steps: usize,
    /// Whose norms count.
    pub norms: Norms,
}

/// A one-step table with a corrector before each of its steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PredictorCorrector<P> {
    /// The rule of the predictor.
    pub predictor: P,
    /// The corrector.
    pub corrector: Langevin,
    /// Whether the last step leaves its noise out.
    pub denoise: bool,
}

/// The numbers of the draws of one predictor.
struct Numbered<'a> {
    inner: &'a dyn NormalSource,
    number: usize,
}

impl NormalSource for Numbered<'_> {
    fn normal(&self, _: usize, like: &Tensor) -> sde_core::Result<Tensor> {
        self.inner.normal(self.number, like)
    }
}

impl<P: Multistep> Sampler for PredictorCorrector<P> {
    fn sample(&self, path: &Path<'_>, x: &Tensor, noise: &dyn NormalSource) -> Result<Solution> {
        in_range("snr", self.corrector.snr, 0.0, 1e3)?;
        let table = self.predictor.table(path.sde, path.grid)?;
        let mut steps = one_step_parts(self.predictor.name(), &table)?;
        if let (true, Some(row)) = (self.denoise, steps.last_mut().and_then(|part| part.updates.last_mut())) {
            row.inject = None;
        }
        let score = Converted::new(path.field, path.sde, Prediction::Score);
        let (draws, times) = (self.corrector.steps + 1, path.grid.times().len());
        let mut x = x.clone();
        for (i, part) in steps.iter().enumerate() {
            let t = part.updates[0].from;
            let scale = chain_step(path.sde, t, times).map_or(1.0, |step| step.factor * step.factor);
            for corrector in 0..self.corrector.steps {
                let z = noise.normal(i * draws + corrector, &x)?;
                let at = Place { step: i, t, scale };
                x = self.corrector.correct(&score, &x, &z, at)?;
            }
            let numbered = Numbered { inner: noise, number: i * draws + self.corrector.steps };
            x = part.sample(path.sde, path.field, &x, &numbered)?.x;
        }
        let nfe = vec![table.nfe() + steps.len() * self.corrector.steps; x.dim(0)?];
        Ok(Solution { x, nfe })
    }
}

/// A table cut into its steps of the grid.
fn one_step_parts(name: &'static str, table: &Table) -> Result<Vec<Table>> {
    let mut parts: Vec<Table> = Vec::new();
    for rows in table.updates.chunk_by(|a, b| a.step == b.step) {
        let mut seen = 0;
        for Update { terms, step, .. } in rows {
            seen += usize::from(!terms.is_empty());
            if terms.len() > seen {
                return Err(Error::NotOneStep { sampler: name, step: *step });
            }
        }
        parts.push(Table { of: table.of, updates: rows.to_vec() });
    }
    Ok(parts)
}

/// Where a corrector stands.
#[derive(Clone, Copy)]
struct Place {
    step: usize,
    t: f64,
    /// a
    scale: f64,
}

impl Langevin {
    /// One step of Langevin dynamics.
    fn correct(&self, score: &dyn Field, x: &Tensor, z: &Tensor, at: Place) -> Result<Tensor> {
        let s = score.eval(x, &[at.t])?;
        let (signal, noise) = (norms(&s)?, norms(z)?);
        let delta = |signal: f64, noise: f64| 2.0 * at.scale * (self.snr * noise / signal).powi(2);
        let next = match self.norms {
            Norms::Sample => {
                let deltas: Vec<f64> = signal.iter().zip(&noise).map(|(s, z)| delta(*s, *z)).collect();
                let spread = deltas.iter().map(|d| (2.0 * d).sqrt()).collect();
                let (drift, spread) = (each(deltas, &s)?, each(spread, z)?);
                combine(&[(&Op::IDENTITY, x), (&Op::IDENTITY, &drift), (&Op::IDENTITY, &spread)])?
            }
            Norms::Batch => {
                let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
                let delta = delta(mean(&signal), mean(&noise));
                let (drift, spread) = (Op::Scalar(delta), Op::Scalar((2.0 * delta).sqrt()));
                combine(&[(&Op::IDENTITY, x), (&drift, &s), (&spread, z)])?
            }
        };
        if next.finite { Ok(next.sum) } else { Err(Error::NonFinite { step: at.step, t: at.t }) }
    }
}

/// The norm of each sample, summed in f64.
fn norms(x: &Tensor) -> Result<Vec<f64>> {
    let rows =
        x.flatten_from(1)?.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    Ok(rows.iter().map(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt()).collect())
}

/// One factor for each sample.
fn each(factors: Vec<f64>, x: &Tensor) -> Result<Tensor> {
    let mut dims = vec![1; x.rank()];
    dims[0] = factors.len();
    Ok(x.broadcast_mul(&host_tensor(factors, &dims, x.dtype(), x.device())?)?)
}
