//! The funnel: a Gaussian whose spread is the exponential of one of its coordinates.
//!
//! ```text
//! x₀ ~ N(0, s²)        x_i | x₀ ~ N(0, e^{x₀}), i = 1 … D−1        log Z = 0
//! ```
//!
//! Reference: Neal 2003, Slice sampling, section 8; Zhang 2023 (thesis), section 5.4: s² = 9, D = 10.
//! Differs: the thesis' public code has s² = 1; both can be had, and Table 5.1 is compared with s² = 9.

use std::f64::consts::TAU;

use candle_core::Tensor;

use super::{LogDensity, Target, by_rows};
use crate::error::in_range;
use crate::{Error, Result};

/// The funnel in D dimensions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Funnel {
    dim: usize,
    variance: f64,
}

impl Funnel {
    /// The funnel in `dim` dimensions whose neck has the variance s².
    ///
    /// # Errors
    /// When there are fewer than two dimensions or the variance is not positive.
    pub fn new(dim: usize, variance: f64) -> Result<Self> {
        if dim < 2 {
            return Err(Error::Range {
                what: "the number of dimensions of a funnel",
                found: dim as f64,
                low: 2.0,
                high: f64::MAX,
            });
        }
        in_range("the variance of a funnel's neck", variance, f64::MIN_POSITIVE, f64::MAX)?;
        Ok(Self { dim, variance })
    }
}

impl Target for Funnel {
    fn name(&self) -> &str {
        "funnel"
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn log_normaliser(&self) -> Option<f64> {
        Some(0.0)
    }

    fn log_density(&self, x: &Tensor) -> Result<LogDensity> {
        let rest = (self.dim - 1) as f64;
        by_rows(x, self.dim, |x, score| {
            let (neck, precision) = (x[0], (-x[0]).exp());
            let square: f64 = x[1..].iter().map(|v| v * v).sum();
            for (s, v) in score[1..].iter_mut().zip(&x[1..]) {
                *s = -v * precision;
            }
            score[0] = -neck / self.variance - 0.5 * rest + 0.5 * square * precision;
            -0.5 * (neck * neck / self.variance + (TAU * self.variance).ln())
                - 0.5 * (square * precision + rest * (TAU.ln() + neck))
        })
    }
}
