//! What chains move under: a target, the Gaussian that they start from, and every law between the two.
//!
//! π_β ∝ π₀^{1−β} μ̂^β, β from 0 (the start) to 1 (the target).

use candle_core::{DType, Device, Tensor};
use sde_core::Target;
use sde_core::noise::{Draws, Noise, Stream, host_tensor};

use crate::error::in_range;
use crate::{Error, Result};

/// The law that chains start from: N(m, diag s²).
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Base {
    /// N(m, diag s²).
    ///
    /// # Errors
    /// If there are not as many means as deviations or none, if a mean is not finite, or a deviation not positive.
    pub fn new(mean: Vec<f64>, deviation: Vec<f64>) -> Result<Self> {
        if mean.len() != deviation.len() {
            let (expected, found) = (format!("{} deviations", mean.len()), deviation.len().to_string());
            return Err(sde_core::Error::Mismatch {
                what: "the law that chains start from",
                expected,
                found,
            }
            .into());
        }
        in_range("dimensions of the law that chains start from", mean.len() as f64, 1.0, 1e9)?;
        for m in &mean {
            in_range("a mean of the law that chains start from", *m, f64::MIN, f64::MAX)?;
        }
        for s in &deviation {
            in_range("a deviation of the law that chains start from", *s, f64::MIN_POSITIVE, f64::MAX)?;
        }
        Ok(Self { mean, deviation })
    }

    /// N(0, s² I) in `dim` dimensions.
    ///
    /// # Errors
    /// If there are no dimensions, or s is not positive.
    pub fn isotropic(dim: usize, deviation: f64) -> Result<Self> {
        Self::new(vec![0.0; dim], vec![deviation; dim])
    }

    pub(super) fn log(&self, x: &[f64]) -> f64 {
        let term = |((x, m), s): ((&f64, &f64), &f64)| {
            let z = (x - m) / s;
            -0.5 * (z * z + std::f64::consts::TAU.ln()) - s.ln()
        };
        x.iter().zip(&self.mean).zip(&self.deviation).map(term).sum()
    }

    fn draw(&self, draws: &mut Draws) -> Vec<f64> {
        self.mean.iter().zip(&self.deviation).map(|(m, s)| m + s * draws.normal()).collect()
    }

    /// One point a chain, row by row.
    pub(super) fn start(&self, chains: usize, noise: Noise, site: u32) -> Vec<f64> {
        (0..chains as u32).flat_map(|i| self.draw(&mut noise.draws_at(Stream::Prior, site, 0, i))).collect()
    }
}

/// Points with density and score of the target.
#[derive(Debug, Clone)]
pub(super) struct Points {
    pub(super) x: Vec<f64>,
    pub(super) value: Vec<f64>,
    pub(super) score: Vec<f64>,
}

impl Points {
    /// Evaluates a target.
    pub(super) fn at(target: &dyn Target, x: Vec<f64>) -> Result<Self> {
        let dim = target.dim();
        let points = Tensor::from_slice(&x, (x.len() / dim.max(1), dim), &Device::Cpu)?;
        let density = target.log_density(&points)?;
        let fits = |tensor: &Tensor, dims: &[usize]| tensor.dims() == dims && tensor.dtype() == DType::F64;
        let n = points.dim(0)?;
        if !fits(&density.value, &[n]) || !fits(&density.score, &[n, dim]) {
            let told = |tensor: &Tensor| format!("{:?} in {:?}", tensor.dims(), tensor.dtype());
            return Err(sde_core::Error::Mismatch {
                what: "density and score of a target",
                expected: format!("[{n}] and [{n}, {dim}] in f64 of the target {}", target.name()),
                found: format!("{} and {}", told(&density.value), told(&density.score)),
            }
            .into());
        }
        let value = density.value.to_vec1::<f64>()?;
        Ok(Self { x, value, score: density.score.flatten_all()?.to_vec1::<f64>()? })
    }

    /// Refuses points of which one has no density: they are no samples.
    pub(super) fn arrived(&self, sampler: &'static str) -> Result<()> {
        match self.value.iter().position(|value| !value.is_finite()) {
            Some(chain) => Err(Error::NoDensity { sampler, chain, found: self.value[chain] }),
            None => Ok(()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.value.len()
    }

    pub(super) fn dim(&self) -> usize {
        self.x.len() / self.value.len().max(1)
    }

    pub(super) fn row(&self, i: usize) -> &[f64] {
        &self.x[i * self.dim()..(i + 1) * self.dim()]
    }

    /// Takes row i of others.
    pub(super) fn take(&mut self, i: usize, from: &Self, j: usize) {
        let dim = self.dim();
        self.x[i * dim..(i + 1) * dim].copy_from_slice(from.row(j));
        self.score[i * dim..(i + 1) * dim].copy_from_slice(&from.score[j * dim..(j + 1) * dim]);
        self.value[i] = from.value[j];
    }

    /// The points as a tensor `[N, D]`.
    pub(super) fn tensor(&self) -> Result<Tensor> {
        Ok(host_tensor(self.x.clone(), &[self.len(), self.dim()], DType::F64, &Device::Cpu)?)
    }
}

/// Refuses to draw nothing, or more than noise has addresses for.
pub(super) fn some_samples(samples: usize) -> Result<()> {
    in_range("samples drawn from a target", samples as f64, 1.0, f64::from(u32::MAX)).map(|_| ())
}

/// π_β.
#[derive(Clone, Copy)]
pub(super) struct Law<'a> {
    pub(super) target: &'a dyn Target,
    pub(super) base: &'a Base,
    pub(super) beta: f64,
}

impl<'a> Law<'a> {
    /// The target itself.
    ///
    /// # Errors
    /// If the starting law has another number of dimensions.
    pub(super) fn new(target: &'a dyn Target, base: &'a Base) -> Result<Self> {
        if base.mean.len() != target.dim() {
            let expected = format!("{} dimensions, as the target {}", target.dim(), target.name());
            let found = base.mean.len().to_string();
            return Err(sde_core::Error::Mismatch {
                what: "the law that chains start from",
                expected,
                found,
            }
            .into());
        }
        Ok(Self { target, base, beta: 1.0 })
    }

    /// log π_β of point i; −∞ where it is not a number.
    pub(super) fn log(&self, points: &Points, i: usize) -> f64 {
        let rest = 1.0 - self.beta;
        let base = if rest > 0.0 { rest * self.base.log(points.row(i)) } else { 0.0 };
        let log = self.beta * points.value[i] + base;
        if log.is_nan() { f64::NEG_INFINITY } else { log }
    }

    /// ∂ log π_β of coordinate k of point i.
    pub(super) fn slope(&self, points: &Points, i: usize, k: usize) -> f64 {
        let at = i * points.dim() + k;
        let rest = 1.0 - self.beta;
        let variance = self.base.deviation[k] * self.base.deviation[k];
        let base = if rest > 0.0 { rest * (self.base.mean[k] - points.x[at]) / variance } else { 0.0 };
        self.beta * points.score[at] + base
    }

    /// log μ̂ − log π₀ of point i, by which weights grow with β.
    pub(super) fn ratio(&self, points: &Points, i: usize) -> f64 {
        let ratio = points.value[i] - self.base.log(points.row(i));
        if ratio.is_nan() { f64::NEG_INFINITY } else { ratio }
    }
}
