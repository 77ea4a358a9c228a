//! Log density (or a bound of it) of a model of points in the plane, on the cell centres of a rectangle: the map behind a
//! density picture.
//!
//! With cells of area A, `Σ p A` is how much of the model's mass the rectangle holds.

use candle_core::{Device, Tensor};
use ndarray::Array2;
use sde_core::noise::{BatchNoise, Noise};

use crate::{Error, PointDensity, Result};

/// A rectangle of the plane, cut into cells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Left and right end.
    pub x: [f64; 2],
    /// Lower and upper end.
    pub y: [f64; 2],
    /// The number of cells from left to right.
    pub nx: usize,
    /// The number of cells from bottom to top.
    pub ny: usize,
}

impl Window {
    pub(crate) fn area(&self) -> f64 {
        (self.x[1] - self.x[0]) * (self.y[1] - self.y[0])
    }

    pub(crate) fn centre(&self, row: usize, column: usize) -> [f64; 2] {
        let along = |[low, high]: [f64; 2], i, n| low + (i as f64 + 0.5) / n as f64 * (high - low);
        [along(self.x, column, self.nx), along(self.y, row, self.ny)]
    }

    pub(crate) fn check(&self) -> Result<()> {
        let grows = |[low, high]: [f64; 2]| low < high && low.is_finite() && high.is_finite();
        if grows(self.x) && grows(self.y) && self.nx > 0 && self.ny > 0 {
            return Ok(());
        }
        Err(Error::mismatch(
            "window of a density",
            "finite increasing ends and at least one cell",
            format!("{self:?}"),
        ))
    }
}

/// The log density at the centres of a window's cells.
#[derive(Debug, Clone, PartialEq)]
pub struct DensityMap {
    /// `[ny, nx]`, the lowest row first; −∞ where a solve did not finish.
    pub values: Array2<f64>,
    /// The number of cells whose solve did not finish.
    pub unfinished: usize,
    /// The area of a cell.
    pub cell_area: f64,
}

impl DensityMap {
    /// Maps `window`, solving `batch` cells at a time.
    ///
    /// # Errors
    /// For a window without cells or an empty batch, and as [`PointDensity::log_density`].
    pub fn new(density: &dyn PointDensity, window: &Window, batch: usize, noise: Noise) -> Result<Self> {
        window.check()?;
        if batch == 0 {
            return Err(Error::mismatch("batch size", "at least 1", 0));
        }
        let cells: Vec<(usize, usize)> =
            (0..window.ny).flat_map(|row| (0..window.nx).map(move |column| (row, column))).collect();
        let mut map = Self {
            values: Array2::from_elem((window.ny, window.nx), f64::NEG_INFINITY),
            unfinished: 0,
            cell_area: window.area() / cells.len() as f64,
        };
        for (chunk, first) in cells.chunks(batch).zip((0..).step_by(batch)) {
            let centres: Vec<f64> =
                chunk.iter().flat_map(|&(row, column)| window.centre(row, column)).collect();
            let points = Tensor::from_vec(centres, (chunk.len(), 2), &Device::Cpu)?;
            let addresses = BatchNoise::new(noise, 0, first..first + chunk.len() as u32);
            let found = density.log_density(&points, &addresses)?;
            for (&cell, result) in chunk.iter().zip(found) {
                match result.value {
                    Some(value) => map.values[cell] = value,
                    None => map.unfinished += 1,
                }
            }
        }
        Ok(map)
    }

    /// The mass inside the window, by the midpoint rule.
    pub fn mass(&self) -> f64 {
        self.values.iter().map(|v| v.exp()).sum::<f64>() * self.cell_area
    }
}
