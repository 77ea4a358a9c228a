//! Swiss rolls in the plane, one or five.
//!
//! One roll: `¼ ((t cos t, t sin t) + N(0, I))`, t = 1.5π (1 + 2u), u ~ U(0, 1). The multi Swiss roll adds
//! four copies shifted by (±4.5, ±4.5), all five with equal weight.
//!
//! Reference: Lai et al. 2022 (FP-Diffusion), arXiv 2210.04296, Appendix D.1; the roll is scikit-learn's
//! `make_swiss_roll`, its first and third column.
//! Differs: points come in random order, not roll by roll.

use std::f64::consts::PI;

use sde_core::noise::Draws;

use super::Recipe;

/// Copies of the roll.
#[derive(Debug)]
pub(super) struct Rolls {
    shifts: &'static [[f64; 2]],
}

pub(super) const SINGLE: Rolls = Rolls { shifts: &[[0.0, 0.0]] };
pub(super) const MULTI: Rolls =
    Rolls { shifts: &[[0.0, 0.0], [4.5, 4.5], [4.5, -4.5], [-4.5, 4.5], [-4.5, -4.5]] };

impl Recipe for Rolls {
    fn sample(&self, draws: &mut Draws) -> Vec<f64> {
        let shift = self.shifts[draws.below(self.shifts.len() as u64) as usize];
        let t = 1.5 * PI * (1.0 + 2.0 * draws.uniform());
        let curve = [t * libm::cos(t), t * libm::sin(t)];
        shift.iter().zip(curve).map(|(s, c)| s + (c + draws.normal()) / 4.0).collect()
    }

    /// From ∫ t cos t, ∫ t sin t, ∫ t² cos² t and ∫ t² sin² t over [1.5π, 4.5π]; the shifts have mean zero.
    fn moments(&self) -> (Vec<f64>, Vec<f64>) {
        let n = self.shifts.len() as f64;
        let curve_mean = [2.0, 2.0 / (3.0 * PI)];
        let curve_square = [4.875 * PI * PI - 0.25, 4.875 * PI * PI + 0.25];
        let variance = |axis: usize| {
            let curve = curve_square[axis] - curve_mean[axis].powi(2);
            (curve + 1.0) / 16.0 + self.shifts.iter().map(|s| s[axis].powi(2)).sum::<f64>() / n
        };
        (curve_mean.map(|m| m / 4.0).to_vec(), vec![variance(0), variance(1)])
    }
}
