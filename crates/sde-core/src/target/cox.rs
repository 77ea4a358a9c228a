//! The posterior of a log-Gaussian Cox process: how dense points lie, as a field on a grid of n × n cells.
//!
//! ```text
//! x ~ N(m 1, K)        K_ij = v exp(−‖u_i − u_j‖ / ℓ)        y_i | x ~ Poisson(a e^{x_i})
//! log μ̂ = log N(x; m 1, K) + Σ_i (x_i y_i − a e^{x_i})
//! ```
//!
//! u are the cells' centres in the unit square and a = 1/n² their area; the factor 1/Π y_i! is left out. Seen *whitened*, the target is the law of z in
//! `x = m + L z`, `K = L Lᵀ`, of the same Z: its prior is N(0, I), and there is no inverse.
//!
//! Reference: Møller, Syversveen, Waagepetersen 1998, Log Gaussian Cox processes; Zhang 2023 (thesis), Eq. (5.21), with the numbers of its public code.

use std::f64::consts::TAU;

use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;

use super::{LogDensity, Target, host_points};
use crate::error::in_range;
use crate::noise::host_tensor;
use crate::{Error, Result};

/// The grid and the prior of the field on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoxGrid {
    /// n, the number of cells along a side.
    pub side: usize,
    /// v, the variance of the log intensity.
    pub variance: f64,
    /// ℓ, in units of the square.
    pub length: f64,
    /// m, its mean.
    pub mean: f64,
}

impl CoxGrid {
    /// The prior of the literature for `points` points on n × n cells: v = 1.91, ℓ = 1/33, and m = log(points) − v/2, for which as many are expected.
    pub fn published(side: usize, points: usize) -> Self {
        Self { side, variance: 1.91, length: 1.0 / 33.0, mean: (points as f64).ln() - 0.5 * 1.91 }
    }

    /// How many of `points` lie in each cell, row by row; the upper edges of the square belong to it.
    ///
    /// # Errors
    /// [`Error::Range`] for a point outside the unit square, or a grid without cells.
    pub fn counts(&self, points: &[[f64; 2]]) -> Result<Vec<f64>> {
        in_range("cells along a side of a grid", self.side as f64, 1.0, 1e4)?;
        let mut counts = vec![0.0; self.side * self.side];
        for point in points {
            let mut cell = [0; 2];
            for (cell, &value) in cell.iter_mut().zip(point) {
                in_range("a coordinate of a point in the unit square", value, 0.0, 1.0)?;
                *cell = ((value * self.side as f64) as usize).min(self.side - 1);
            }
            counts[cell[0] * self.side + cell[1]] += 1.0;
        }
        Ok(counts)
    }

    /// K.
    fn covariance(&self) -> DMatrix<f64> {
        let n = self.side;
        let scale = self.length * n as f64;
        DMatrix::from_fn(n * n, n * n, |i, j| {
            let along = |f: fn(usize, usize) -> usize| f(i, n) as f64 - f(j, n) as f64;
            let distance = along(|i, n| i / n).hypot(along(|i, n| i % n));
            self.variance * (-distance / scale).exp()
        })
    }
}

/// How the prior enters.
#[derive(Debug)]
enum Prior {
    /// K⁻¹, and −½ log det 2πK.
    Field { precision: Tensor, log_norm: f64 },
    /// Lᵀ, for states that are whitened.
    Whitened { factor: Tensor },
}

/// The posterior of the field, given counts.
#[derive(Debug)]
pub struct Cox {
    grid: CoxGrid,
    /// y, `[1, D]`.
    counts: Tensor,
    prior: Prior,
}

impl Cox {
    /// The posterior given `counts`, in terms of the field or of the whitened field.
    ///
    /// # Shapes
    /// `counts` has n² entries, row by row.
    ///
    /// # Errors
    /// When the counts do not fit the grid or are no counts, or the prior is not positive definite.
    pub fn new(grid: CoxGrid, counts: &[f64], whitened: bool) -> Result<Self> {
        let dim = grid.side * grid.side;
        if counts.len() != dim || dim == 0 {
            return Err(Error::Mismatch {
                what: "counts of a Cox process",
                expected: format!("{dim} cells, one or more"),
                found: counts.len().to_string(),
            });
        }
        for &count in counts {
            in_range("a count of a Cox process", count, 0.0, f64::MAX)?;
        }
        in_range("the variance of a Cox process", grid.variance, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("the length of a Cox process", grid.length, f64::MIN_POSITIVE, f64::MAX)?;
        in_range("the mean of a Cox process", grid.mean, f64::MIN, f64::MAX)?;
        let cholesky = grid.covariance().cholesky().ok_or_else(|| Error::Mismatch {
            what: "prior of a Cox process",
            expected: "a positive definite covariance".into(),
            found: format!("a length of {} on cells of {}", grid.length, 1.0 / grid.side as f64),
        })?;
        let dense =
            |m: &DMatrix<f64>| host_tensor(m.as_slice().to_vec(), &[dim, dim], DType::F64, &Device::Cpu);
        let prior = if whitened {
            // Columns first: as rows this is Lᵀ.
            Prior::Whitened { factor: dense(&cholesky.l())? }
        } else {
            let log_det: f64 = cholesky.l_dirty().diagonal().map(f64::ln).sum();
            let log_norm = -0.5 * dim as f64 * TAU.ln() - log_det;
            Prior::Field { precision: dense(&cholesky.inverse())?, log_norm }
        };
        let counts = host_tensor(counts.to_vec(), &[1, dim], DType::F64, &Device::Cpu)?;
        Ok(Self { grid, counts, prior })
    }

    /// The field x of states.
    ///
    /// # Shapes
    /// `[B, n²]` to `[B, n²]`.
    ///
    /// # Errors
    /// When the states have another shape.
    pub fn field(&self, state: &Tensor) -> Result<Tensor> {
        match &self.prior {
            Prior::Field { .. } => Ok(state.clone()),
            Prior::Whitened { factor } => Ok((state.matmul(factor)? + self.grid.mean)?),
        }
    }
}

impl Target for Cox {
    fn name(&self) -> &str {
        match self.prior {
            Prior::Field { .. } => "lgcp",
            Prior::Whitened { .. } => "lgcp-whitened",
        }
    }

    fn dim(&self) -> usize {
        self.grid.side * self.grid.side
    }

    fn log_normaliser(&self) -> Option<f64> {
        None
    }

    fn log_density(&self, x: &Tensor) -> Result<LogDensity> {
        host_points(x, self.dim())?;
        let area = 1.0 / self.dim() as f64;
        let field = self.field(x)?;
        let expected = (field.exp()? * area)?;
        let surprise = self.counts.broadcast_sub(&expected)?;
        let likelihood = (field.broadcast_mul(&self.counts)? - expected)?.sum(1)?;
        match &self.prior {
            Prior::Field { precision, log_norm } => {
                let off = (field - self.grid.mean)?;
                let pull = off.matmul(precision)?;
                let prior = ((&off * &pull)?.sum(1)? * -0.5)?;
                Ok(LogDensity { value: ((prior + likelihood)? + *log_norm)?, score: (surprise - pull)? })
            }
            Prior::Whitened { factor } => {
                let log_norm = -0.5 * self.dim() as f64 * TAU.ln();
                let prior = (x.sqr()?.sum(1)? * -0.5)?;
                let score = (surprise.matmul(&factor.t()?)? - x)?;
                Ok(LogDensity { value: ((prior + likelihood)? + log_norm)?, score })
            }
        }
    }
}
