//! Sliced Wasserstein distance: W₂ of one-dimensional projections, averaged over directions,
//!
//! `SW₂²(P, Q) = E_θ ∫₀¹ (F⁻¹_{θP}(u) − F⁻¹_{θQ}(u))² du`,  θ uniform on the sphere.
//!
//! Between finite samples it is never zero, even of equal laws: with quantile functions F̂⁻¹ of h points, `E
//! ∫(F̂⁻¹ − Ĝ⁻¹)² = ∫(E F̂⁻¹ − E Ĝ⁻¹)² + ∫Var F̂⁻¹ + ∫Var Ĝ⁻¹`, and two samples of one law have `2 ∫Var
//! F̂⁻¹`. So the centred statistic of two disjoint blocks of each law, the mean of the four distances across
//! less half of the two within, is unbiased for `∫(E F̂⁻¹ − E Ĝ⁻¹)²`: zero for equal laws, exact for shifted
//! ones, and SW₂² as h grows. Disjoint groups of blocks, each with directions of its own, give the standard
//! error.
//!
//! Reference: Rabin, Peyré, Delon, Bernot 2012, doi 10.1007/978-3-642-24785-9_37; Bonneel et al. 2015, doi
//! 10.1007/s10851-014-0506-3.
//! Differs: the centring.

use candle_core::Tensor;
use rayon::prelude::*;
use sde_core::noise::{Noise, Stream};

use crate::rows::Rows;
use crate::{Error, Estimate, Result};

/// How the centred estimate is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlicedWasserstein {
    /// Groups of blocks: independent values behind the standard error.
    pub groups: usize,
    /// Directions in each group.
    pub directions: usize,
}

impl SlicedWasserstein {
    /// The centred estimate of SW₂² between the laws of two samples; it may be negative. Points are used in
    /// the order given: each group takes two blocks of `N / (2 · groups)` of each sample, and what is left
    /// over is not used.
    ///
    /// # Shapes
    /// `x` `[N, …]`, `y` `[M, …]`.
    ///
    /// # Errors
    /// Unless there are two groups, a direction, and two points a block.
    pub fn squared(&self, x: &Tensor, y: &Tensor, noise: Noise) -> Result<Estimate> {
        let (x, y) = Rows::pair(x, y)?;
        let block = x.len().min(y.len()) / self.groups.saturating_mul(2).max(1);
        if self.groups < 2 || self.directions == 0 || block < 2 {
            let found = format!(
                "{} groups, {} directions, {} and {} points",
                self.groups,
                self.directions,
                x.len(),
                y.len()
            );
            let expected = "two groups, a direction, and four points a group in each sample";
            return Err(Error::mismatch("centred sliced Wasserstein distance", expected, found));
        }
        let values: Vec<f64> = (0..self.groups)
            .into_par_iter()
            .map(|group| {
                let directions = random_directions(noise, group, self.directions, x.dim());
                centred(&x, &y, [2 * group * block, (2 * group + 1) * block], block, &directions)
            })
            .collect();
        Estimate::mean(&values)
    }
}

/// SW₂² between two samples themselves, for given directions (of any length, taken as they are).
///
/// # Shapes
/// `x` `[N, D]`, `y` `[M, D]`, `directions` `[L, D]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn sliced_wasserstein_squared(x: &Tensor, y: &Tensor, directions: &Tensor) -> Result<f64> {
    let (x, y) = Rows::pair(x, y)?;
    let directions = Rows::new(directions, "directions")?;
    if directions.dim() != x.dim() {
        return Err(Error::mismatch(
            "directions",
            format!("{} entries each, as the points", x.dim()),
            directions.dim(),
        ));
    }
    let distance = |l: usize| {
        let theta = directions.row(l);
        wasserstein_1d(&projected(&x, 0, x.len(), theta), &projected(&y, 0, y.len(), theta))
    };
    Ok((0..directions.len()).into_par_iter().map(distance).sum::<f64>() / directions.len() as f64)
}

fn random_directions(noise: Noise, group: usize, count: usize, dim: usize) -> Vec<Vec<f64>> {
    let direction = |l: usize| {
        let mut draws = noise.draws(Stream::Metric, group as u32, l as u32);
        let normal: Vec<f64> = (0..dim).map(|_| draws.normal()).collect();
        let length = normal.iter().map(|v| v * v).sum::<f64>().sqrt();
        normal.into_iter().map(|v| v / length).collect()
    };
    (0..count).map(direction).collect()
}

/// The centred statistic of the blocks that start at `starts`, averaged over directions.
fn centred(x: &Rows, y: &Rows, starts: [usize; 2], block: usize, directions: &[Vec<f64>]) -> f64 {
    let one = |theta: &Vec<f64>| {
        let [x0, x1] = starts.map(|start| projected(x, start, block, theta));
        let [y0, y1] = starts.map(|start| projected(y, start, block, theta));
        let across: f64 =
            [(&x0, &y0), (&x0, &y1), (&x1, &y0), (&x1, &y1)].map(|(a, b)| wasserstein_1d(a, b)).iter().sum();
        0.25 * across - 0.5 * (wasserstein_1d(&x0, &x1) + wasserstein_1d(&y0, &y1))
    };
    directions.iter().map(one).sum::<f64>() / directions.len() as f64
}

/// `θ · p` of `count` points from `start`, sorted.
fn projected(points: &Rows, start: usize, count: usize, theta: &[f64]) -> Vec<f64> {
    let dot = |i: usize| points.row(i).iter().zip(theta).map(|(p, t)| p * t).sum();
    let mut values: Vec<f64> = (start..start + count).map(dot).collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// W₂² of two sorted samples: the quantile functions are steps, of 1/N and 1/M.
fn wasserstein_1d(x: &[f64], y: &[f64]) -> f64 {
    let (n, m) = (x.len(), y.len());
    if n == m {
        return x.iter().zip(y).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / n as f64;
    }
    // In units of 1/(N M), so that the ends of steps are whole numbers.
    let (mut i, mut j, mut from, mut total) = (0, 0, 0, 0.0);
    while i < n && j < m {
        let to = ((i + 1) * m).min((j + 1) * n);
        total += (to - from) as f64 * (x[i] - y[j]).powi(2);
        (i, j) = (i + usize::from(to == (i + 1) * m), j + usize::from(to == (j + 1) * n));
        from = to;
    }
    total / (n * m) as f64
}
