//! The centred estimate of a distance that samples of one law do not have from each other:
//!
//! `¼ Σ_ab d(x_a, y_b) − ½ d(x_0, x_1) − ½ d(y_0, y_1)`,
//!
//! of two disjoint blocks of each sample. Its mean is zero for equal laws, whatever d; for a squared Wasserstein distance and one law
//! shifted it is the square of the shift. Disjoint groups of blocks give the standard error.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::rows::Rows;
use crate::{Error, Estimate, Result};

/// The mean over groups; points are used in the order given, `N / (2 · groups)` to a block.
///
/// # Errors
/// Unless there are two groups and two points a block; those of the distance.
pub(crate) fn centred(
    what: &'static str,
    groups: usize,
    x: &Tensor,
    y: &Tensor,
    distance: impl Fn(&Rows, &Rows) -> Result<f64> + Sync,
) -> Result<Estimate> {
    let (x, y) = Rows::pair(x, y)?;
    let block = x.len().min(y.len()) / groups.saturating_mul(2).max(1);
    if groups < 2 || block < 2 {
        let found = format!("{groups} groups, {} and {} points", x.len(), y.len());
        return Err(Error::mismatch(what, "two groups, and four points a group in each sample", found));
    }
    let one = |group: usize| {
        let cut = |rows: &Rows, k: usize| rows.slice((2 * group + k) * block, block);
        let ([x0, x1], [y0, y1]) = ([0, 1].map(|k| cut(&x, k)), [0, 1].map(|k| cut(&y, k)));
        let across = [(&x0, &y0), (&x0, &y1), (&x1, &y0), (&x1, &y1)];
        let across: f64 = across.iter().map(|(a, b)| distance(a, b)).sum::<Result<_>>()?;
        Ok(0.25 * across - 0.5 * (distance(&x0, &x1)? + distance(&y0, &y1)?))
    };
    let values: Vec<f64> = (0..groups).into_par_iter().map(one).collect::<Result<_>>()?;
    Estimate::mean(&values)
}
