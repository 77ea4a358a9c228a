//! Analytic-DPM with a variance for each coordinate: `x' = (α'/α) x − c ε + √(s² + c² κ) ⊙ z` with a vector κ.
//!
//! A table's operators treat all coordinates alike, so what is a vector here is the noise: the table injects it with factor 1, and the source of
//! noise that the executor is given multiplies by the deviations. Exact for Gaussian data along the axes with any steps and any η.
//!
//! Reference: Bao, Li, Sun, Zhu, Zhang 2022, arXiv 2206.07309, section 3, the diagonal covariance with one value for all states.

use candle_core::{Device, Tensor};
use sde_core::noise::NormalSource;
use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::analytic_dpm::{Clipping, place, step};
use super::{Table, alpha_sigma};
use crate::Result;
use crate::error::in_range;
use crate::sampler::{Path, Sampler, Solution};

/// DDIM with the optimal diagonal variance.
#[derive(Debug, Clone)]
pub struct AnalyticDiagonal {
    /// η of DDIM.
    pub eta: f64,
    /// The times at which κ is known.
    pub times: Vec<f64>,
    /// κ at each, of the sample's shape.
    pub kappa: Vec<Tensor>,
    /// What the variance is kept within.
    pub clipping: Clipping,
}

/// Standard normals times the deviations of their step.
struct Scaled<'a> {
    inner: &'a dyn NormalSource,
    deviations: Vec<Option<Tensor>>,
}

impl NormalSource for Scaled<'_> {
    fn normal(&self, step: usize, like: &Tensor) -> sde_core::Result<Tensor> {
        let normal = self.inner.normal(step, like)?;
        match self.deviations.get(step).and_then(Option::as_ref) {
            Some(deviation) => {
                let deviation = deviation.to_dtype(like.dtype())?.to_device(like.device())?;
                Ok(normal.broadcast_mul(&deviation)?)
            }
            None => Ok(normal),
        }
    }
}

impl AnalyticDiagonal {
    const NAME: &'static str = "analytic-diagonal";

    /// The table, and the deviations of the noise of each step that draws any.
    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<(Table, Vec<Option<Tensor>>)> {
        in_range("eta", self.eta, 0.0, 1.0)?;
        let known = self.times.len() as f64;
        in_range("residual variances, one for each of their times,", self.kappa.len() as f64, known, known)?;
        self.clipping.check()?;
        sde_core::grid::require_signal(sde, grid.start(), "analytic-dpm")?;
        let (times, steps) = (grid.times(), grid.steps());
        let (mut updates, mut deviations) = (Vec::new(), Vec::new());
        for i in 0..steps {
            let (alpha, sigma) = alpha_sigma(Self::NAME, sde, times[i])?;
            let kappa = &self.kappa[place(&self.times, times[i])?];
            let (update, spread, square) = step(Self::NAME, (self.eta, sde), times[i], times[i + 1])?;
            let largest = self.clipping.largest(i, steps);
            let deviation = |kappa: &f64| -> Result<f64> {
                let kappa = self.clipping.kappa(*kappa, alpha, sigma)?;
                Ok((spread + square * kappa).sqrt().min(largest))
            };
            let host = kappa.flatten_all()?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
            let host = host.iter().map(deviation).collect::<Result<Vec<f64>>>()?;
            let noisy = host.iter().any(|v| *v > 0.0);
            let tensor = Tensor::from_vec(host, kappa.dims(), &Device::Cpu)?.unsqueeze(0)?;
            deviations.push(noisy.then_some(tensor));
            let factor = if noisy { Op::IDENTITY } else { Op::ZERO };
            updates.push(update.with_noise(factor).of_step(i));
        }
        Ok((Table { of: Prediction::Noise, updates }, deviations))
    }
}

impl Sampler for AnalyticDiagonal {
    fn sample(&self, path: &Path<'_>, x: &Tensor, noise: &dyn NormalSource) -> Result<Solution> {
        let (table, deviations) = self.table(path.sde, path.grid)?;
        table.sample(path.sde, path.field, x, &Scaled { inner: noise, deviations })
    }
}
