//! Whether a score is a gradient: the part of its Jacobian J that is antisymmetric, `‖J − Jᵀ‖_F / ‖J‖_F`.
//!
//! 0 for every gradient, √2 at most on average over all matrices, 2 for a rotation. Along axes both norms are exact; from random signs
//! v and w, `E (wᵀJ v − vᵀJ w)² = ‖J − Jᵀ‖_F²` and `E ‖Jᵀ v‖² = ‖J‖_F²`, each from vector–Jacobian products alone, so that a gradient has
//! 0 to rounding whatever the probes.
//!
//! Reference: Lai et al. 2022, arXiv 2210.04296, section 6.2; Chao et al. 2022, arXiv 2209.12753, for the norms (whose `NAsym` is a
//! quarter of our ratio squared).

use candle_core::Tensor;
use sde_core::Field;
use serde::Serialize;

use super::{Directions, Noised, Part, dot, squares};
use crate::{Error, Estimate, Result};

/// The asymmetry at one time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Asymmetry {
    /// The time.
    pub t: f64,
    /// `√(E ‖J − Jᵀ‖² / E ‖J‖²)`.
    pub ratio: Estimate,
    /// `E ‖J − Jᵀ‖_F²`, J the Jacobian of the score.
    pub antisymmetric: Estimate,
    /// `E ‖J‖_F²`.
    pub jacobian: Estimate,
}

/// The asymmetry over the noised points at time `t`.
///
/// # Errors
/// For no probes, and whatever the field's derivatives return.
pub fn asymmetry(points: &Noised<'_>, t: f64, directions: Directions) -> Result<Asymmetry> {
    if directions == (Directions::Random { probes: 0 }) {
        return Err(Error::mismatch("probes of a Jacobian", "at least 1", 0));
    }
    let found = points.at(t, |part| match directions {
        Directions::Axes => along_axes(part),
        Directions::Random { probes } => along_signs(part, probes),
    })?;
    let (antisymmetric, jacobian): (Vec<f64>, Vec<f64>) = found.into_iter().unzip();
    let (above, below) = (Estimate::mean(&antisymmetric)?, Estimate::mean(&jacobian)?);
    let square = if below.value > 0.0 { above.value / below.value } else { 0.0 };
    // The delta method for a ratio of means, then for its root.
    let residuals: Vec<f64> =
        antisymmetric.iter().zip(&jacobian).map(|(a, b)| (a - square * b) / below.value).collect();
    let spread = Estimate::mean(&residuals)?.standard_error;
    let root = square.sqrt();
    let standard_error = spread.map(|e| if root > 0.0 { 0.5 * e / root } else { 0.0 });
    let ratio = Estimate { value: root, standard_error, n: above.n };
    Ok(Asymmetry { t, ratio, antisymmetric: above, jacobian: below })
}

fn along_axes(part: &Part<'_>) -> Result<Vec<(f64, f64)>> {
    let axes = part.axes()?;
    let rows = part.score().vjps(&part.u, &[part.t], &axes)?.1;
    let rows = rows.iter().map(|row| Ok(row.flatten_from(1)?.unsqueeze(1)?)).collect::<Result<Vec<_>>>()?;
    let jacobian = Tensor::cat(&rows, 1)?;
    let gap = (&jacobian - jacobian.transpose(1, 2)?)?;
    Ok(squares(&gap)?.into_iter().zip(squares(&jacobian)?).collect())
}

fn along_signs(part: &Part<'_>, probes: usize) -> Result<Vec<(f64, f64)>> {
    let signs = (0..2 * probes).map(|k| part.signs(k)).collect::<Result<Vec<_>>>()?;
    let products = part.score().vjps(&part.u, &[part.t], &signs)?.1;
    let mut sums = vec![(0.0, 0.0); part.u.dim(0)?];
    for (pair, product) in signs.chunks_exact(2).zip(products.chunks_exact(2)) {
        // wᵀJ v and vᵀJ w.
        let (there, back) = (dot(&product[0], &pair[1])?, dot(&product[1], &pair[0])?);
        let (first, second) = (squares(&product[0])?, squares(&product[1])?);
        for (i, sum) in sums.iter_mut().enumerate() {
            sum.0 += (there[i] - back[i]).powi(2) / probes as f64;
            sum.1 += 0.5 * (first[i] + second[i]) / probes as f64;
        }
    }
    Ok(sums)
}
