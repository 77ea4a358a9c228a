//! Wasserstein distance of two samples of equal size, exact, by the best assignment:
//!
//! `W_p^p = min_π (1/N) Σ_i |x_i − y_π(i)|^p`,  p = 1 or 2.
//!
//! Assignments are found by shortest augmenting paths: prices v_j keep `c_ij − v_j ≥ c_iπ(i) − v_π(i)`, and each point that is not assigned
//! yet takes the cheapest chain of reassignments to a free partner. O(N³) time at worst, N² numbers of memory.
//!
//! Two samples of one law are not at distance zero, and in d > 2 dimensions W₂² of samples falls as N^(−2/d) only: [`Transport`] estimates
//! with the mean distance within each law taken away (`centred.rs`).
//!
//! Reference: Jonker, Volgenant 1987, doi 10.1007/BF02278710; Villani 2009, section 6, for the distance.
//! Differs: without the reference's reduction of rows.

use candle_core::Tensor;

use crate::centred::centred;
use crate::rows::Rows;
use crate::{Error, Estimate, Result};

/// The most points a side: 128 MiB of costs, a minute of work.
pub const MOST_POINTS: usize = 4096;

/// The power p of the distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// W₁, the mean distance moved.
    One,
    /// W₂², the mean squared distance moved.
    Two,
}

impl Power {
    fn cost(self, a: &[f64], b: &[f64]) -> f64 {
        let square: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
        match self {
            Self::One => square.sqrt(),
            Self::Two => square,
        }
    }
}

/// How the centred estimate is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Groups of blocks: independent values behind the standard error.
    pub groups: usize,
    /// p.
    pub power: Power,
}

impl Transport {
    /// The centred estimate of `W_p^p` between the laws of two samples, which may be negative: each group takes two blocks of `N / (2 ·
    /// groups)` of each, in the order given.
    ///
    /// # Shapes
    /// `x` `[N, …]`, `y` `[M, …]`.
    ///
    /// # Errors
    /// Unless there are two groups and two points a block, and at most [`MOST_POINTS`].
    pub fn estimate(&self, x: &Tensor, y: &Tensor) -> Result<Estimate> {
        centred("centred Wasserstein distance", self.groups, x, y, |a, b| wasserstein_rows(a, b, self.power))
    }
}

/// `W_p^p` of two samples themselves; as a distance of their laws it is too large, and has no error bar ([`Transport`] has).
///
/// # Shapes
/// `x` and `y` `[N, …]`.
///
/// # Errors
/// For samples of different size, or of more than [`MOST_POINTS`].
pub fn wasserstein(x: &Tensor, y: &Tensor, power: Power) -> Result<f64> {
    let (x, y) = Rows::pair(x, y)?;
    wasserstein_rows(&x, &y, power)
}

fn wasserstein_rows(x: &Rows, y: &Rows, power: Power) -> Result<f64> {
    let n = x.len();
    if n > MOST_POINTS {
        return Err(Error::TooMany {
            what: "points of an assignment",
            found: n,
            most: MOST_POINTS,
            instead: "take fewer points or more groups, or the sliced distance or a Sinkhorn divergence",
        });
    }
    if n != y.len() {
        let expected = format!("{n} points, as in the first (or a sliced distance, a Sinkhorn divergence)");
        return Err(Error::mismatch("second sample of an assignment", expected, y.len()));
    }
    let costs: Vec<f64> = (0..n * n).map(|k| power.cost(x.row(k / n), y.row(k % n))).collect();
    let assigned = Assignment::solve(&costs, n);
    Ok(assigned.columns.iter().enumerate().map(|(i, &j)| costs[i * n + j]).sum::<f64>() / n as f64)
}

/// Nobody.
const FREE: usize = usize::MAX;

/// Which column each row takes, and what columns cost.
struct Assignment {
    columns: Vec<usize>,
    rows: Vec<usize>,
    prices: Vec<f64>,
}

impl Assignment {
    /// The cheapest, of `n` rows of `n` costs.
    fn solve(costs: &[f64], n: usize) -> Self {
        let mut found = Self { columns: vec![FREE; n], rows: vec![FREE; n], prices: vec![0.0; n] };
        // A column's price is its least cost; where that row is free, they are a pair.
        for j in 0..n {
            let least = (0..n).min_by(|a, b| costs[a * n + j].total_cmp(&costs[b * n + j])).unwrap_or(0);
            found.prices[j] = costs[least * n + j];
            if found.columns[least] == FREE {
                (found.columns[least], found.rows[j]) = (j, least);
            }
        }
        for row in 0..n {
            if found.columns[row] == FREE {
                found.augment(costs, n, row);
            }
        }
        found
    }

    /// Gives a free row a column by the shortest path of reassignments.
    fn augment(&mut self, costs: &[f64], n: usize, free: usize) {
        let mut length: Vec<f64> = (0..n).map(|j| costs[free * n + j] - self.prices[j]).collect();
        let (mut from, mut done) = (vec![free; n], Vec::with_capacity(n));
        let mut open: Vec<usize> = (0..n).collect();
        let (mut end, mut shortest) = (FREE, 0.0);
        while let Some(at) = (0..open.len()).min_by(|a, b| length[open[*a]].total_cmp(&length[open[*b]])) {
            let column = open.swap_remove(at);
            shortest = length[column];
            if self.rows[column] == FREE {
                end = column;
                break;
            }
            done.push(column);
            let row = self.rows[column];
            let costs = &costs[row * n..(row + 1) * n];
            let detour = shortest - (costs[column] - self.prices[column]);
            for &j in &open {
                let through = costs[j] - self.prices[j] + detour;
                if through < length[j] {
                    (length[j], from[j]) = (through, row);
                }
            }
        }
        for column in done {
            self.prices[column] += length[column] - shortest;
        }
        // Back along the path: each row hands its old column to the one before it.
        while end != FREE {
            let row = from[end];
            self.rows[end] = row;
            let old = std::mem::replace(&mut self.columns[row], end);
            end = if row == free { FREE } else { old };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sde_core::noise::{Noise, Stream};

    /// The certificate: prices that no other pair undercuts, so the sum is the least there is.
    #[test]
    fn no_pair_undercuts_the_prices() {
        let mut draws = Noise::new(0).draws(Stream::User, 0, 0);
        for n in [1, 2, 7, 60] {
            // Whole numbers, so that there are ties.
            let costs: Vec<f64> = (0..n * n).map(|_| draws.below(30) as f64).collect();
            let Assignment { columns, rows, prices } = Assignment::solve(&costs, n);
            for i in 0..n {
                assert_eq!(rows[columns[i]], i);
                let own = costs[i * n + columns[i]] - prices[columns[i]];
                assert!((0..n).all(|j| costs[i * n + j] - prices[j] >= own - 1e-9));
            }
        }
    }
}
