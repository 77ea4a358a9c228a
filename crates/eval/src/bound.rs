//! What the bounds of this crate share: a value known without drawing, and a mean over draws, one from each of equal strata.

use candle_core::Tensor;
use sde_core::noise::BatchNoise;
use sde_solvers::Outcome;

use crate::estimate::{mean, stratified_error};
use crate::likelihood::checked_points;
use crate::{LogDensity, Result};

/// `known(x) − mean of draw(j)` for each point x; `draw` makes the j-th of `draws` draws for all points, two evaluations each.
///
/// # Errors
/// Those of `known` and `draw`, and unless there is an address of noise for each point.
pub(crate) fn bound(
    x: &Tensor,
    noise: &BatchNoise,
    draws: usize,
    known: impl Fn(&[f64]) -> Result<f64>,
    draw: impl Fn(&[&[f64]], usize) -> Result<Vec<f64>>,
) -> Result<Vec<LogDensity>> {
    let points = checked_points(x, noise)?;
    let rows: Vec<&[f64]> = (0..points.len()).map(|i| points.row(i)).collect();
    let drawn = (0..draws).map(|j| draw(&rows, j)).collect::<Result<Vec<_>>>()?;
    let of_point = |(i, x): (usize, &&[f64])| {
        let values: Vec<f64> = drawn.iter().map(|draw| draw[i]).collect();
        let told = LogDensity::new(known(x)? - mean(&values), 2 * draws, Outcome::Finished);
        Ok(LogDensity { standard_error: stratified_error(&values), ..told })
    };
    rows.iter().enumerate().map(of_point).collect()
}
