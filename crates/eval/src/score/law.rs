//! Laws whose noised scores are known, for a score to be compared with: mixtures of Gaussians, and what is uniform on boxes.
//!
//! A coordinate that is uniform on [a, b] has, noised by a scalar process, with `A = (u − αa)/σ` and `B = (u − αb)/σ`,
//!
//! `p(u) = (Φ(A) − Φ(B)) / (α(b − a))`,  `∂ log p/∂u = (φ(A) − φ(B)) / (σ(Φ(A) − Φ(B)))`,
//!
//! and boxes are averaged as the components of any mixture. In the tails the difference of Φ is taken by the scaled complementary error
//! function, so that neither underflows.

use candle_core::{DType, Tensor};
use rayon::prelude::*;
use sde_core::noise::host_tensor;
use sde_core::oracle::Mixture;
use sde_core::{Field, LinearSde, OracleField};

use crate::rows::Rows;
use crate::{Error, Result};

/// A law of data that is known at every time.
pub trait KnownLaw {
    /// D.
    fn dim(&self) -> usize;

    /// The log density and ε = −Rᵀ score of the noised law.
    ///
    /// # Shapes
    /// `u` `[B, D]` f64; so is ε.
    ///
    /// # Errors
    /// Where the noised law has no density, and when the process is none that this law is known under.
    fn noised(&self, sde: &dyn LinearSde, u: &Tensor, t: f64) -> Result<(Vec<f64>, Tensor)>;
}

impl KnownLaw for Mixture {
    fn dim(&self) -> usize {
        self.dim()
    }

    fn noised(&self, sde: &dyn LinearSde, u: &Tensor, t: f64) -> Result<(Vec<f64>, Tensor)> {
        let field = OracleField::noise(self, sde);
        Ok((field.log_density(u, &[t])?, field.eval(u, &[t])?))
    }
}

/// The uniform law on boxes that do not overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct Boxes {
    /// Lowest and highest corner of each.
    corners: Vec<(Vec<f64>, Vec<f64>)>,
    dim: usize,
}

impl Boxes {
    /// The law on boxes with these lowest and highest corners.
    ///
    /// # Errors
    /// Unless there is one at least, and all are finite, of one dimension and of some width in each.
    pub fn new(corners: Vec<(Vec<f64>, Vec<f64>)>) -> Result<Self> {
        let dim = corners.first().map_or(0, |(low, _)| low.len());
        let fits = |(low, high): &(Vec<f64>, Vec<f64>)| {
            let grows = low.iter().zip(high).all(|(a, b)| a < b && a.is_finite() && b.is_finite());
            low.len() == dim && high.len() == dim && grows
        };
        if dim == 0 || !corners.iter().all(fits) {
            let expected = "finite boxes of one dimension, each lower corner below the higher";
            return Err(Error::mismatch("boxes of a law", expected, format!("{} boxes", corners.len())));
        }
        Ok(Self { corners, dim })
    }

    /// Log density and score at one state.
    fn at(&self, u: &[f64], alpha: f64, sigma: f64) -> (f64, Vec<f64>) {
        let mut parts = Vec::with_capacity(self.corners.len());
        let mut volume = 0.0;
        for (low, high) in &self.corners {
            let (mut log, mut score) = (0.0, Vec::with_capacity(self.dim));
            for ((u, a), b) in u.iter().zip(low).zip(high) {
                let (mass, slope) = interval((u - alpha * a) / sigma, (u - alpha * b) / sigma);
                log += mass;
                score.push(slope / sigma);
            }
            volume += low.iter().zip(high).map(|(a, b)| b - a).product::<f64>();
            parts.push((log, score));
        }
        let top = parts.iter().map(|(log, _)| *log).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = parts.iter().map(|(log, _)| (log - top).exp()).sum();
        let mut score = vec![0.0; self.dim];
        for (log, part) in &parts {
            let weight = (log - top).exp() / total;
            score.iter_mut().zip(part).for_each(|(sum, s)| *sum += weight * s);
        }
        (top + total.ln() - volume.ln() - self.dim as f64 * alpha.ln(), score)
    }
}

impl KnownLaw for Boxes {
    fn dim(&self) -> usize {
        self.dim
    }

    fn noised(&self, sde: &dyn LinearSde, u: &Tensor, t: f64) -> Result<(Vec<f64>, Tensor)> {
        let (Some(alpha), Some(sigma)) = (sde.signal(t).as_scalar(), sde.factor(t).as_scalar()) else {
            let expected = "a process that treats all coordinates alike";
            return Err(Error::mismatch("process of boxes", expected, sde.signal(t).describe()));
        };
        if !(alpha > 0.0 && sigma > 0.0) {
            return Err(Error::mismatch("time of boxes", "one with signal and noise", t));
        }
        let rows = Rows::new(u, "states of a known law")?;
        if rows.dim() != self.dim {
            return Err(Error::mismatch(
                "states of a known law",
                format!("{} entries", self.dim),
                rows.dim(),
            ));
        }
        let found: Vec<(f64, Vec<f64>)> =
            (0..rows.len()).into_par_iter().map(|i| self.at(rows.row(i), alpha, sigma)).collect();
        let (logs, scores): (Vec<f64>, Vec<Vec<f64>>) = found.into_iter().unzip();
        let noise = scores.concat().into_iter().map(|s| -sigma * s).collect();
        Ok((logs, host_tensor(noise, &[rows.len(), self.dim], DType::F64, u.device())?))
    }
}

/// `log(Φ(A) − Φ(B))` and `(φ(A) − φ(B))/(Φ(A) − Φ(B))`, A > B.
fn interval(a: f64, b: f64) -> (f64, f64) {
    let root = std::f64::consts::FRAC_1_SQRT_2;
    let density = (2.0 / std::f64::consts::PI).sqrt() / 2.0;
    if a <= 0.0 {
        // The mirror image.
        let (log, slope) = interval(-b, -a);
        return (log, -slope);
    }
    if b <= 0.0 {
        let mass = 0.5 * (libm::erf(a * root) + libm::erf(-b * root));
        let slope = density * ((-0.5 * a * a).exp() - (-0.5 * b * b).exp());
        return (mass.ln(), slope / mass);
    }
    // Both above: in units of exp(−B²/2).
    let ratio = (-0.5 * (a - b) * (a + b)).exp();
    let mass = 0.5 * (scaled_erfc(b * root) - ratio * scaled_erfc(a * root));
    (mass.ln() - 0.5 * b * b, density * (ratio - 1.0) / mass)
}

/// `exp(x²) erfc(x)` for x ≥ 0.
///
/// Reference: Abramowitz, Stegun 1964, 7.1.23, from 25 on, where what comes after these terms is below 3e-15.
fn scaled_erfc(x: f64) -> f64 {
    if x < 25.0 {
        return (x * x).exp() * libm::erfc(x);
    }
    let s = 0.5 / (x * x);
    (1.0 - s * (1.0 - 3.0 * s * (1.0 - 5.0 * s * (1.0 - 7.0 * s * (1.0 - 9.0 * s)))))
        / (x * std::f64::consts::PI.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scaled_error_function_is_right_on_both_sides_of_its_seam() {
        // mpmath, 20 digits.
        for (x, expected) in [
            (0.0, 1.0),
            (1.0, 0.427_583_576_155_807),
            (24.9, 0.022_639_987_776_049_505),
            (25.1, 0.022_459_875_817_581_39),
            (100.0, 0.005_641_613_782_989_433),
        ] {
            assert!((scaled_erfc(x) / expected - 1.0).abs() < 1e-12, "{x}: {}", scaled_erfc(x));
        }
    }

    #[test]
    fn the_slope_of_an_interval_is_that_of_its_mass() {
        for (u, width) in [(0.0, 1.0), (-0.3, 0.2), (5.0, 2.0), (-30.0, 1.0), (60.0, 3.0), (40.0, 100.0)] {
            let at = |u: f64| interval(u + width, u);
            let h = 1e-4;
            let slope =
                (8.0 * (at(u + h).0 - at(u - h).0) - (at(u + 2.0 * h).0 - at(u - 2.0 * h).0)) / (12.0 * h);
            let found = at(u).1;
            assert!((slope - found).abs() < 1e-8 * found.abs().max(1.0), "{u}: {found}, not {slope}");
        }
    }
}
