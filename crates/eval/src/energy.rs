//! Energy distance of two samples, without bias: `2 E|x − y| − E|x − x'| − E|y − y'|`, zero only for equal laws.
//!
//! It is the discrepancy by pairs with `k(x, y) = −|x − y|`, with the standard error of `u_statistic.rs`.
//!
//! Reference: Székely, Rizzo 2013, doi 10.1016/j.jspi.2013.03.018, Eq. (2.1).
//! Differs: means over pairs of different points, where the reference's statistic counts a point with itself.

use candle_core::Tensor;

use crate::rows::Rows;
use crate::u_statistic::{by_pairs, discrepancy};
use crate::{Estimate, Result};

/// The unbiased energy distance (not its root) between the laws of two samples; it may be negative.
///
/// # Shapes
/// `x` `[N, …]`, `y` `[M, …]`.
///
/// # Errors
/// Unless each sample has four points.
pub fn energy_distance(x: &Tensor, y: &Tensor) -> Result<Estimate> {
    let (x, y) = Rows::pair(x, y)?;
    let kernel = |a: &[f64], b: &[f64]| -a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let within_x = by_pairs(|i, j| kernel(x.row(i), x.row(j)));
    let within_y = by_pairs(|i, j| kernel(y.row(i), y.row(j)));
    let across = by_pairs(|i, j| kernel(x.row(i), y.row(j)));
    discrepancy("energy distance", (x.len(), y.len()), [&within_x, &within_y, &across])
}
