//! x̂₀ kept in the range of the data: what guidance drives out of it comes back.
//!
//! ```text
//! range      x̂₀ clamped to [low, high]
//! dynamic    s = max(bound, quantile of |x̂₀| within the sample),   bound / s · (x̂₀ clamped to [−s, s])
//! ```
//!
//! Reference: Saharia et al. 2022, arXiv 2205.11487, section 2.3. The quantile is interpolated linearly between order statistics.
//! Differs: the bound is a parameter, where the paper has 1, and the paper's result is in [−bound, bound] as here.

use std::cell::RefCell;

use candle_core::{DType, Tensor};
use rayon::prelude::*;
use sde_core::noise::host_tensor;
use sde_core::{Converted, Cotangents, Error, Field, LinearSde, Prediction, Result};

use crate::error::in_range;

/// How x̂₀ is kept in range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// Entries are clamped.
    Range {
        /// The smallest value of the data.
        low: f64,
        /// The largest.
        high: f64,
    },
    /// Each sample is clamped at a quantile of its own absolute values, and scaled to the bound, if the quantile is beyond it.
    Dynamic {
        /// The quantile, in [0, 1]; 0.995 in Imagen.
        quantile: f64,
        /// The largest absolute value of the data.
        bound: f64,
    },
}

/// A field whose estimate of the data stays in range; it predicts the data.
pub struct Clipped<'a, F> {
    field: F,
    sde: &'a dyn LinearSde,
    clip: Clip,
}

/// The dynamic threshold of one sample, and the order statistics it is made of: places and weights.
struct Threshold {
    at: f64,
    of: [(usize, f64); 2],
}

impl Threshold {
    fn of(x: &[f64], quantile: f64, bound: f64) -> Self {
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_unstable_by(|&a, &b| x[a].abs().total_cmp(&x[b].abs()));
        let place = quantile * (x.len().max(1) - 1) as f64;
        let (low, part) = (place.floor() as usize, place.fract());
        let high = (low + 1).min(x.len().saturating_sub(1));
        let (low, high) = (order.get(low).copied().unwrap_or(0), order.get(high).copied().unwrap_or(0));
        let value = |i: usize| x.get(i).map_or(0.0, |x| x.abs());
        let found = (1.0 - part) * value(low) + part * value(high);
        // A NaN must come through, not be taken for a sample in range.
        if found <= bound {
            Self { at: bound, of: [(0, 0.0); 2] }
        } else {
            Self { at: found, of: [(low, 1.0 - part), (high, part)] }
        }
    }
}

impl Clip {
    fn check(self) -> crate::Result<()> {
        match self {
            Self::Range { low, high } => {
                in_range("clip low", low, f64::MIN, f64::MAX)?;
                in_range("clip high", high, low, f64::MAX)?;
            }
            Self::Dynamic { quantile, bound } => {
                in_range("clip quantile", quantile, 0.0, 1.0)?;
                in_range("clip bound", bound, f64::MIN_POSITIVE, f64::MAX)?;
            }
        }
        Ok(())
    }

    /// One sample in range.
    fn value(self, x: &[f64]) -> Vec<f64> {
        match self {
            Self::Range { low, high } => x.iter().map(|x| x.clamp(low, high)).collect(),
            Self::Dynamic { quantile, bound } => {
                let s = Threshold::of(x, quantile, bound).at;
                let kept = |x: &f64| if x.abs() > s { s.copysign(*x) } else { *x };
                x.iter().map(|x| bound * (kept(x) / s)).collect()
            }
        }
    }

    /// `vᵀ ∂value/∂x`.
    fn vjp(self, x: &[f64], v: &[f64]) -> Vec<f64> {
        match self {
            Self::Range { low, high } => {
                x.iter().zip(v).map(|(x, v)| if (low..=high).contains(x) { *v } else { 0.0 }).collect()
            }
            Self::Dynamic { quantile, bound } => {
                let Threshold { at: s, of } = Threshold::of(x, quantile, bound);
                let inside = |x: &f64| x.abs() <= s;
                let mut product: Vec<f64> =
                    x.iter().zip(v).map(|(x, v)| if inside(x) { bound * v / s } else { 0.0 }).collect();
                // Entries within depend on the threshold as 1/s, those beyond it do not.
                let kept = x.iter().zip(v).filter(|(x, _)| inside(x));
                let of_threshold = -bound / (s * s) * kept.map(|(x, v)| x * v).sum::<f64>();
                for (place, weight) in of.into_iter().filter(|(_, weight)| *weight != 0.0) {
                    product[place] += of_threshold * weight * x[place].signum();
                }
                product
            }
        }
    }
}

/// A map of the samples of a batch, on the host.
fn each(x: &Tensor, f: impl Fn(usize, &[f64]) -> Vec<f64> + Sync) -> Result<Tensor> {
    let values = host(x)?;
    let width = (values.len() / x.dim(0)?.max(1)).max(1);
    let rows: Vec<Vec<f64>> = values.par_chunks(width).enumerate().map(|(i, row)| f(i, row)).collect();
    host_tensor(rows.concat(), x.dims(), x.dtype(), x.device())
}

fn host(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?)
}

impl<'a, F: Field> Clipped<'a, F> {
    /// `field`, a field of `sde`, with its x̂₀ in range.
    ///
    /// # Errors
    /// When the range is empty, the quantile outside [0, 1], or the bound not positive.
    pub fn new(field: F, sde: &'a dyn LinearSde, clip: Clip) -> crate::Result<Self> {
        clip.check()?;
        Ok(Self { field, sde, clip })
    }
}

impl<F: Field> Field for Clipped<'_, F> {
    fn prediction(&self) -> Prediction {
        Prediction::Data
    }

    fn eval(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        let (data, clip) = (Converted::new(&self.field, self.sde, Prediction::Data).eval(x, t)?, self.clip);
        each(&data.detach(), |_, row| clip.value(row))
    }

    fn pull_back(&self, x: &Tensor, t: &[f64], cotangents: &Cotangents<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        let (made, clip) = (RefCell::new(None), self.clip);
        let through = |data: &Tensor| {
            let value = each(data, |_, row| clip.value(row))?;
            let pulled = cotangents(&value)?.into_iter().map(|v| {
                let v = host(&v)?;
                each(data, |i, row| clip.vjp(row, &v[i * row.len()..(i + 1) * row.len()]))
            });
            let pulled = pulled.collect::<Result<Vec<_>>>()?;
            made.replace(Some(value));
            Ok(pulled)
        };
        let converted = Converted::new(&self.field, self.sde, Prediction::Data);
        let (_, products) = converted.pull_back(x, t, &through)?;
        let unused = Error::NoGradient { hint: "`pull_back` of the field must ask for its cotangents" };
        Ok((made.into_inner().ok_or(unused)?, products))
    }

    fn restrict<'b>(&'b self, samples: &[usize]) -> Result<Option<Box<dyn Field + 'b>>> {
        let inner = self.field.restrict(samples)?;
        Ok(inner
            .map(|field| Box::new(Clipped { field, sde: self.sde, clip: self.clip }) as Box<dyn Field + 'b>))
    }
}
