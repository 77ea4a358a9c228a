//! The map that standardises data, one axis at a time: `y = (x − shift) / scale`.
//!
//! Densities change by a constant: `log p_y(y) = log p_x(x) + Σ ln scale`, and entropies by its negative.

use ndarray::ArrayView2;

use crate::{Error, Result};

/// An invertible affine map of each axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    shift: Vec<f64>,
    scale: Vec<f64>,
}

impl Affine {
    /// The map with these coefficients.
    ///
    /// # Errors
    /// Unless there is one finite shift and one finite, positive scale an axis.
    pub fn new(shift: Vec<f64>, scale: Vec<f64>) -> Result<Self> {
        let fits = shift.len() == scale.len()
            && shift.iter().all(|v| v.is_finite())
            && scale.iter().all(|&v| v.is_finite() && v > 0.0);
        if fits {
            Ok(Self { shift, scale })
        } else {
            let found = format!("shift {shift:?}, scale {scale:?}");
            Err(Error::mismatch("affine map", "finite shifts and as many positive scales", found))
        }
    }

    /// The map that leaves everything in place.
    pub fn identity(dim: usize) -> Self {
        Self { shift: vec![0.0; dim], scale: vec![1.0; dim] }
    }

    /// The map to zero mean and unit variance of these rows (variance with divisor N).
    ///
    /// # Shapes
    /// `[N, D]`.
    ///
    /// # Errors
    /// If an axis is constant or not finite.
    pub fn standardising(rows: ArrayView2<'_, f64>) -> Result<Self> {
        let mean = rows.mean_axis(ndarray::Axis(0)).ok_or(Error::Empty("the data to standardise"))?;
        let scale = rows.std_axis(ndarray::Axis(0), 0.0);
        if let Some(axis) = scale.iter().position(|&s| s == 0.0) {
            let found = format!("axis {axis} is constant; drop it");
            return Err(Error::mismatch("standardised data", "every axis to vary", found));
        }
        Self::new(mean.to_vec(), scale.to_vec())
    }

    /// The map to zero mean and unit variance, from mean and variance.
    pub(crate) fn from_moments(mean: Vec<f64>, variance: Vec<f64>) -> Self {
        Self { shift: mean, scale: variance.into_iter().map(f64::sqrt).collect() }
    }

    /// The number of axes.
    pub fn dim(&self) -> usize {
        self.shift.len()
    }

    /// What is taken away from each axis.
    pub fn shift(&self) -> &[f64] {
        &self.shift
    }

    /// What each axis is divided by.
    pub fn scale(&self) -> &[f64] {
        &self.scale
    }

    /// `Σ ln scale`, the logarithm of the volume that becomes a unit of volume.
    pub fn log_scale(&self) -> f64 {
        self.scale.iter().map(|s| s.ln()).sum()
    }

    /// Standardises a point in place; of a longer point the first axes.
    pub fn apply(&self, point: &mut [f64]) {
        for ((v, shift), scale) in point.iter_mut().zip(&self.shift).zip(&self.scale) {
            *v = (*v - shift) / scale;
        }
    }

    /// Undoes [`apply`](Self::apply).
    pub fn invert(&self, point: &mut [f64]) {
        for ((v, shift), scale) in point.iter_mut().zip(&self.shift).zip(&self.scale) {
            *v = *v * scale + shift;
        }
    }
}
