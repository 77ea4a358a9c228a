//! A Gaussian on a plane above the origin of space: `(x, y) ~ N(0, ¼ I)`, `z ~ N(2, 0.05²)`, in its own coordinates.
//!
//! It is for how a process carries N(0, I) onto a plane, so it is not standardised.
//!
//! Reference: "A Flexible Diffusion Model", section 4.1: a two-dimensional Gaussian on the plane z = 2.
//! Differs: the paper does not say its covariance. With I along the plane the variance-preserving flow is already vertical, and
//! there is nothing to learn; hence ¼. The plane has a thickness, since the likelihood of a plane itself has no bound.

use sde_core::noise::Draws;

use super::Recipe;

const MEAN: [f64; 3] = [0.0, 0.0, 2.0];
const STD: [f64; 3] = [0.5, 0.5, 0.05];

/// The law.
#[derive(Debug)]
pub(super) struct Plane;

impl Recipe for Plane {
    fn sample(&self, draws: &mut Draws) -> Vec<f64> {
        MEAN.iter().zip(STD).map(|(m, s)| m + s * draws.normal()).collect()
    }

    fn moments(&self) -> (Vec<f64>, Vec<f64>) {
        (MEAN.to_vec(), STD.map(|s| s * s).to_vec())
    }

    fn is_standardised(&self) -> bool {
        false
    }

    fn log_density(&self, point: &[f64]) -> Option<f64> {
        let of_axis = |((x, m), s): ((&f64, f64), f64)| {
            -0.5 * ((x - m) / s).powi(2) - s.ln() - 0.5 * std::f64::consts::TAU.ln()
        };
        Some(point.iter().zip(MEAN).zip(STD).map(of_axis).sum())
    }

    fn entropy(&self) -> Option<f64> {
        Some(STD.iter().map(|s| s.ln() + 0.5 * (std::f64::consts::TAU.ln() + 1.0)).sum())
    }
}
