//! Two spirals, one the other turned by half a turn.
//!
//! `±⅓ (−n cos n + u₁/2, n sin n + u₂/2) + N(0, 0.1² I)`, n = 3π √u, all u ~ U(0, 1), both signs equally
//! likely.
//!
//! Reference: Grathwohl et al. 2019 (FFJORD), arXiv 1810.01367, and its published code.
//! Differs: signs are drawn, not half and half.

use std::f64::consts::PI;

use sde_core::noise::Draws;

use super::Recipe;

/// The two arms.
#[derive(Debug)]
pub(super) struct TwoSpirals;

impl Recipe for TwoSpirals {
    fn sample(&self, draws: &mut Draws) -> Vec<f64> {
        let n = 3.0 * PI * draws.uniform().sqrt();
        let arm = draws.sign() / 3.0;
        let curve = [-n * libm::cos(n), n * libm::sin(n)];
        curve.iter().map(|c| arm * (c + draws.uniform() / 2.0) + 0.1 * draws.normal()).collect()
    }

    /// Under the density 2n/(9π²) on [0, 3π]: E n²cos² n = 9π²/4 + ¾, E n² sin² n = 9π²/4 − ¾, E n cos n =
    /// −4/(3π), E n sin n = 2 − 8/(9π²); and E u/2 = ¼, E u²/4 = 1/12.
    fn moments(&self) -> (Vec<f64>, Vec<f64>) {
        let square =
            |curve_square: f64, curve_mean: f64| (curve_square + 0.5 * curve_mean + 1.0 / 12.0) / 9.0 + 0.01;
        let nine_quarters = 9.0 * PI * PI / 4.0;
        let horizontal = square(nine_quarters + 0.75, 4.0 / (3.0 * PI));
        let vertical = square(nine_quarters - 0.75, 2.0 - 8.0 / (9.0 * PI * PI));
        (vec![0.0, 0.0], vec![horizontal, vertical])
    }
}
