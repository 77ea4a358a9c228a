//! How wrong a score is where the law of the data is known: in units of the noise, `ε̂ − ε = −Rᵀ(s − ∇ log p_t)`, over noised points, and
//! in the plane on a grid.

use candle_core::{DType, Device, Tensor};
use ndarray::Array2;
use sde_core::{Field, LinearSde, Prediction, convert};
use serde::Serialize;

use super::{KnownLaw, Noised, squares};
use crate::{Error, Estimate, Result, Window};

/// The error at one time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ScoreError {
    /// The time.
    pub t: f64,
    /// `E ‖ε̂ − E[ε | u_t]‖² / D`: what the loss has above the least possible.
    pub noise: Estimate,
}

/// The error over noised points of `law`'s samples at time `t`.
///
/// # Errors
/// When the law has another dimension, no density at `t`, or the field fails.
pub fn score_error(points: &Noised<'_>, law: &dyn KnownLaw, t: f64) -> Result<ScoreError> {
    let dim = points.dim();
    if law.dim() != dim {
        return Err(Error::mismatch("dimension of the known law", dim.to_string(), law.dim()));
    }
    let errors = points.at(t, |part| squares(&compared(part.sde, part.field, law, &part.u, t)?.1))?;
    let noise = Estimate::mean(&errors)?.affine(1.0 / dim as f64, 0.0);
    Ok(ScoreError { t, noise })
}

/// The log density of the law, and `ε̂ − E[ε | u]`, at `u`.
fn compared(
    sde: &dyn LinearSde,
    field: &dyn Field,
    law: &dyn KnownLaw,
    u: &Tensor,
    t: f64,
) -> Result<(Vec<f64>, Tensor)> {
    let value = field.eval(u, &[t])?;
    let found = convert(sde, (field.prediction(), Prediction::Noise), &[t], u, &value)?;
    let (density, exact) = law.noised(sde, &u.flatten_from(1)?, t)?;
    Ok((density, (found - exact.reshape(u.dims())?)?))
}

/// The error in the plane at one time, on the cell centres of a window.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorMap {
    /// `‖ε̂ − E[ε | u]‖`, `[ny, nx]`, the lowest row first.
    pub values: Array2<f64>,
    /// The density of the noised law there.
    pub density: Array2<f64>,
    /// The area of a cell.
    pub cell_area: f64,
}

impl ErrorMap {
    /// Maps `window` at time `t`, `batch` cells at a time.
    ///
    /// # Errors
    /// For a law that is not of the plane, a window without cells or an empty batch; when the law has no density at `t`, or the field fails.
    pub fn new(
        sde: &dyn LinearSde,
        field: &dyn Field,
        law: &dyn KnownLaw,
        window: &Window,
        t: f64,
        batch: usize,
    ) -> Result<Self> {
        window.check()?;
        if law.dim() != 2 {
            return Err(Error::mismatch("dimension of an error map", "2", law.dim()));
        }
        if batch == 0 {
            return Err(Error::mismatch("batch size", "at least 1", 0));
        }
        let centres: Vec<[f64; 2]> = (0..window.ny)
            .flat_map(|row| (0..window.nx).map(move |column| window.centre(row, column)))
            .collect();
        let (mut values, mut density) = (Vec::new(), Vec::new());
        for chunk in centres.chunks(batch) {
            let u = Tensor::from_vec(chunk.concat(), (chunk.len(), 2), &Device::Cpu)?.to_dtype(DType::F64)?;
            let (logs, error) = compared(sde, field, law, &u, t)?;
            values.extend(squares(&error)?.into_iter().map(f64::sqrt));
            density.extend(logs.into_iter().map(f64::exp));
        }
        let cells = |values| {
            Array2::from_shape_vec((window.ny, window.nx), values)
                .map_err(|error| Error::mismatch("cells of a window", "one value each", error))
        };
        Ok(Self {
            cell_area: window.area() / centres.len() as f64,
            values: cells(values)?,
            density: cells(density)?,
        })
    }

    /// `√(∫ p ‖ε̂ − ε‖² / ∫ p)` over the window.
    pub fn root_mean_square(&self) -> f64 {
        let weighted: f64 = self.values.iter().zip(&self.density).map(|(e, p)| p * e * e).sum();
        (weighted / self.density.sum()).sqrt()
    }

    /// The mass inside the window, by the midpoint rule.
    pub fn mass(&self) -> f64 {
        self.density.sum() * self.cell_area
    }
}
