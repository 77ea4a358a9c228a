//! The residual variance of a field: how much of ε is left uncertain by the state, from one pass over data.
//!
//! `κ_t = (1/d) E ‖ε − ε̂‖²` of a field that is right can be had without ε in two ways, with x₀ data, x̂₀ and ε̂ the field's predictions at α x₀ + σ ε:
//!
//! - from the data: `κ = (α²/σ²) (1/d) E [‖x₀ − μ‖² − ‖x̂₀ − μ‖²]`, for any fixed μ; here the mean of the data, so that the variance is small;
//! - from the noise: `κ = 1 − (1/d) E ‖ε̂‖²`.
//!
//! The first is precise where there is much noise, the second where there is little; each comes with its standard error, and the smaller one decides.
//! Both also hold for each coordinate alone.
//!
//! Reference: Bao, Li, Zhu, Zhang 2022, arXiv 2201.06503, Theorem 1 and section 3, for the noise; Su 2022, Topics on Diffusion Generative Models,
//! Eq. (7.9), for the data.
//! Differs: both terms of the data's estimate are averaged over the same draws, which takes most of the error out.

use candle_core::{DType, Device, Tensor};
use sde_core::noise::{BatchNoise, Law, Noise, Stream};
use sde_core::{Converted, Field, LinearSde, Prediction};

use crate::Result;
use crate::error::in_range;
use crate::table::{ResidualVariance, alpha_sigma};

/// A mean over samples, with its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// κ, not clipped.
    pub kappa: f64,
    /// Its standard error.
    pub standard_error: f64,
}

/// What a pass over data says of κ at one time.
#[derive(Debug, Clone)]
pub struct Residual {
    /// The time.
    pub t: f64,
    /// The estimate from the data.
    pub of_data: Estimate,
    /// The estimate from the noise.
    pub of_noise: Estimate,
    /// κ of each coordinate, of the sample's shape, from the one that decides; not clipped.
    pub diagonal: Tensor,
}

impl Residual {
    /// The estimate with the smaller standard error.
    pub fn best(&self) -> Estimate {
        if self.of_data.standard_error < self.of_noise.standard_error { self.of_data } else { self.of_noise }
    }
}

/// κ at each of the times, for a table.
pub fn residual_variance(residuals: &[Residual]) -> ResidualVariance {
    ResidualVariance {
        times: residuals.iter().map(|r| r.t).collect(),
        kappa: residuals.iter().map(|r| r.best().kappa).collect(),
    }
}

/// Running sums of a number for each sample, and of a vector.
struct Sums {
    count: f64,
    sum: f64,
    square: f64,
    vector: Tensor,
}

impl Sums {
    /// # Shapes
    /// `entries` `[B, d]`, what the mean over samples and coordinates is wanted of.
    fn add(&mut self, entries: &Tensor) -> Result<()> {
        for mean in entries.mean(1)?.to_vec1::<f64>()? {
            self.count += 1.0;
            self.sum += mean;
            self.square += mean * mean;
        }
        self.vector = (&self.vector + entries.sum(0)?)?;
        Ok(())
    }

    fn new(dim: usize) -> Result<Self> {
        let vector = Tensor::zeros(dim, DType::F64, &Device::Cpu)?;
        Ok(Self { count: 0.0, sum: 0.0, square: 0.0, vector })
    }

    /// `offset + factor · mean`, with its standard error, and the same of the vector.
    fn estimate(&self, offset: f64, factor: f64) -> Result<(Estimate, Tensor)> {
        let mean = self.sum / self.count;
        let variance = (self.square / self.count - mean * mean).max(0.0);
        let standard_error = factor.abs() * (variance / (self.count - 1.0)).sqrt();
        let vector = self.vector.affine(factor / self.count, offset)?;
        Ok((Estimate { kappa: offset + factor * mean, standard_error }, vector))
    }
}

/// A batch as rows of f64 on the host.
fn rows(batch: &Tensor) -> Result<Tensor> {
    Ok(batch.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_from(1)?)
}

/// κ of `field` at `times`, from data that `batch` gives by its number until there is none; it is asked twice for each, first for the mean.
///
/// One evaluation for each time and batch, with noise of its own for each time and sample.
///
/// # Shapes
/// Batches `[B, …]`, of one sample shape; the field sees their type.
///
/// # Errors
/// For processes that are not scalar, fewer than two samples, times where the signal or the noise vanishes, and whatever `batch` or the field returns.
pub fn calibrate(
    sde: &dyn LinearSde,
    field: &dyn Field,
    times: &[f64],
    batch: &dyn Fn(usize) -> Result<Option<Tensor>>,
    noise: Noise,
) -> Result<Vec<Residual>> {
    let (mean, shape) = mean(batch)?;
    let field = Converted::new(field, sde, Prediction::Noise);
    let mut sums = Vec::new();
    for _ in times {
        sums.push((Sums::new(mean.elem_count())?, Sums::new(mean.elem_count())?));
    }
    let (mut at, mut first) = (0, 0);
    while let Some(data) = batch(at)? {
        let count = data.dim(0)? as u32;
        let centred = rows(&data)?.broadcast_sub(&mean)?;
        for (step, (&t, (of_data, of_noise))) in times.iter().zip(&mut sums).enumerate() {
            let (alpha, sigma) = alpha_sigma("calibration", sde, t)?;
            let drawn = BatchNoise::new(noise, step as u32, first..first + count);
            let eps =
                drawn.tensor(Law::Normal, Stream::Calibration, 0, &shape, data.dtype(), data.device())?;
            let state = ((&data * alpha)? + (eps * sigma)?)?;
            let predicted = rows(&field.eval(&state, &[t])?)?;
            let clean = ((rows(&state)? - (&predicted * sigma)?)? / alpha)?.broadcast_sub(&mean)?;
            of_data.add(&(centred.sqr()? - clean.sqr()?)?)?;
            of_noise.add(&predicted.sqr()?)?;
        }
        (at, first) = (at + 1, first + count);
    }
    let residual = |(&t, (of_data, of_noise)): (&f64, &(Sums, Sums))| {
        let (alpha, sigma) = alpha_sigma("calibration", sde, t)?;
        let (of_data, by_data) = of_data.estimate(0.0, (alpha / sigma).powi(2))?;
        let (of_noise, by_noise) = of_noise.estimate(1.0, -1.0)?;
        let data_decides = of_data.standard_error < of_noise.standard_error;
        let diagonal = if data_decides { by_data } else { by_noise }.reshape(shape.as_slice())?;
        Ok(Residual { t, of_data, of_noise, diagonal })
    };
    times.iter().zip(&sums).map(residual).collect()
}

/// The mean of the data as one row, and the shape of a sample.
fn mean(batch: &dyn Fn(usize) -> Result<Option<Tensor>>) -> Result<(Tensor, Vec<usize>)> {
    let (mut at, mut count) = (0, 0);
    let mut total: Option<(Tensor, Vec<usize>)> = None;
    while let Some(data) = batch(at)? {
        (at, count) = (at + 1, count + data.dim(0)?);
        let sum = rows(&data)?.sum_keepdim(0)?;
        total = Some(match total {
            Some((before, shape)) => ((before + sum)?, shape),
            None => (sum, data.dims()[1..].to_vec()),
        });
    }
    in_range("samples of a calibration", count as f64, 2.0, f64::MAX)?;
    match total {
        Some((sum, shape)) => Ok(((sum / count as f64)?, shape)),
        None => Ok((Tensor::zeros((1, 0), DType::F64, &Device::Cpu)?, Vec::new())),
    }
}
