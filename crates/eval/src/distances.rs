//! Squared distances between kept features, in blocks: `|x − y|² = |x|² + |y|² − 2 x·y`, a matrix product.
//!
//! Both sets are centred by the mean of the second, which keeps the terms small; still the difference of large terms loses what is
//! smaller than their rounding, so whatever a decision hangs on is computed again, entry by entry: [`Distances::exact`].

use std::ops::Range;

use faer::Mat;
use rayon::prelude::*;

use crate::matrix::{pieces, small_product};
use crate::{Error, FeatureSet, Result};

/// Features of a tile, along each side.
const TILE: usize = 256;

/// The distances between two sets.
pub(crate) struct Distances<'a> {
    x: &'a FeatureSet,
    y: &'a FeatureSet,
    centre: Vec<f64>,
    norms: [Vec<f64>; 2],
}

impl<'a> Distances<'a> {
    pub(crate) fn new(x: &'a FeatureSet, y: &'a FeatureSet) -> Result<Self> {
        x.check_pair(y)?;
        let mut centre = vec![0.0; y.dim()];
        for rows in pieces(y.len(), TILE) {
            for column in y.block(rows).col_iter() {
                centre.iter_mut().zip(column.iter()).for_each(|(c, v)| *c += v / y.len() as f64);
            }
        }
        let mut distances = Self { x, y, centre, norms: [Vec::new(), Vec::new()] };
        distances.norms = [x, y].map(|set| {
            let norms = pieces(set.len(), TILE).flat_map(|rows| {
                let block = distances.centred(set, rows);
                block.col_iter().map(|column| column.squared_norm_l2()).collect::<Vec<_>>()
            });
            norms.collect()
        });
        Ok(distances)
    }

    fn centred(&self, set: &FeatureSet, rows: Range<usize>) -> Mat<f64> {
        let mut block = set.block(rows);
        for column in block.col_iter_mut() {
            column.iter_mut().zip(&self.centre).for_each(|(v, c)| *v -= c);
        }
        block
    }

    /// The squared distance of x_i and y_j, from their differences.
    pub(crate) fn exact(&self, i: usize, j: usize) -> f64 {
        let (a, b) = (self.x.block(i..i + 1), self.y.block(j..j + 1));
        (0..self.x.dim()).map(|k| (a[(k, 0)] - b[(k, 0)]).powi(2)).sum()
    }

    /// How far the value of a tile may be from [`exact`](Self::exact).
    pub(crate) fn rounding(&self, i: usize, j: usize) -> f64 {
        let [x, y] = &self.norms;
        4.0 * (self.x.dim() + 4) as f64 * f64::EPSILON * (x[i] + y[j])
    }

    /// Calls `each(i, j, |x_i − y_j|²)` for all of a strip of rows; the distances are those of tiles.
    fn strip(&self, rows: Range<usize>, mut each: impl FnMut(usize, usize, f64)) {
        let [of_x, of_y] = &self.norms;
        let x = self.centred(self.x, rows.clone());
        for columns in pieces(self.y.len(), TILE) {
            let y = self.centred(self.y, columns.clone());
            let dots = small_product(x.as_ref(), y.as_ref());
            for (j, column) in columns.zip(dots.col_iter()) {
                for (i, dot) in rows.clone().zip(column.iter()) {
                    each(i, j, (of_x[i] + of_y[j] - 2.0 * dot).max(0.0));
                }
            }
        }
    }

    /// Folds every strip of rows by itself, on all threads; the strips come back in order.
    pub(crate) fn strips<T: Send>(
        &self,
        start: impl Fn(Range<usize>) -> T + Sync,
        each: impl Fn(&mut T, usize, usize, f64) + Sync,
    ) -> Vec<T> {
        let strips: Vec<Range<usize>> = pieces(self.x.len(), TILE).collect();
        let strip = |rows: Range<usize>| {
            let mut state = start(rows.clone());
            self.strip(rows, |i, j, distance| each(&mut state, i, j, distance));
            state
        };
        strips.into_par_iter().map(strip).collect()
    }

    /// Of each x, the nearest y and the squared distance to it; with `other`, the two sets are one and nobody is its own neighbour.
    pub(crate) fn nearest(&self, other: bool) -> Vec<(usize, f64)> {
        let start = |rows: Range<usize>| (rows.start, vec![(0, f64::INFINITY); rows.len()]);
        let each = |(first, best): &mut (usize, Vec<(usize, f64)>), i: usize, j: usize, distance: f64| {
            let best = &mut best[i - *first];
            let rounding = self.rounding(i, j);
            if distance - rounding < best.1 && !(other && i == j) {
                let exact = self.exact(i, j);
                if exact < best.1 {
                    *best = (j, exact);
                }
            }
        };
        self.strips(start, each).into_iter().flat_map(|(_, best)| best).collect()
    }
}

/// Bytes that kept features take, in f32.
pub(crate) fn feature_bytes(n: usize, dim: usize) -> u64 {
    4 * n as u64 * dim as u64
}

/// Bytes that strips take while they are worked on: two blocks and their product, on each thread.
pub(crate) fn strip_bytes(dim: usize) -> u64 {
    let tile = TILE as u64;
    8 * rayon::current_num_threads() as u64 * (2 * tile * dim as u64 + tile * tile)
}

/// Refuses a number of neighbours that is not there.
pub(crate) fn check_neighbours(k: usize, least: usize) -> Result<()> {
    if k > 0 && k < least {
        return Ok(());
    }
    Err(Error::mismatch("number of neighbours", format!("at least 1, less than {least}"), k))
}
