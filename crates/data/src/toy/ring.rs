//! Circles of unit radius with a Gaussian thickness: Olympics, Sharp Olympics, four rings.
//!
//! A uniform point of a uniformly chosen circle plus N(0, σ² I), σ² = 0.2 ν², ν = 0.1 (Olympics) or 0.01 (the
//! others). With r the distance from its centre, the density of one circle is `(2πσ²)⁻¹ exp(−(r² + 1) / 2σ²)
//! I₀(r/σ²)`.
//!
//! Centres (0, ¾), (±1.75, ¾), (±1.05, −¾); four rings leave out (−1.75, ¾). The entropies are integrals of
//! −p ln p by the trapezoidal rule (step σ/2; steps of σ/3 agree to 1e-8 at ν = 0.1); they count the
//! crossings of the circles.
//!
//! Reference: Zhang, Chen 2021 (DiffFlow), arXiv 2110.07579, and its published code.
//! Differs: the text builds a ring by rotating N(1, 0.001²); this is the code's recipe.

use std::f64::consts::TAU;

use sde_core::noise::Draws;

use super::Recipe;

/// Unit circles of one thickness.
#[derive(Debug)]
pub(super) struct Rings {
    centres: &'static [[f64; 2]],
    variance: f64,
    entropy: f64,
}

const CENTRES: [[f64; 2]; 5] = [[-1.75, 0.75], [0.0, 0.75], [1.75, 0.75], [-1.05, -0.75], [1.05, -0.75]];
const FOUR_CENTRES: [[f64; 2]; 4] = [[0.0, 0.75], [1.75, 0.75], [-1.05, -0.75], [1.05, -0.75]];

pub(super) const OLYMPICS: Rings = Rings { centres: &CENTRES, variance: 2e-3, entropy: 1.626_538_9 };
pub(super) const SHARP_OLYMPICS: Rings = Rings { centres: &CENTRES, variance: 2e-5, entropy: -0.556_242_9 };
pub(super) const FOUR: Rings = Rings { centres: &FOUR_CENTRES, variance: 2e-5, entropy: -0.777_625_7 };

impl Recipe for Rings {
    fn sample(&self, draws: &mut Draws) -> Vec<f64> {
        let centre = self.centres[draws.below(self.centres.len() as u64) as usize];
        let angle = TAU * draws.uniform();
        let deviation = self.variance.sqrt();
        let circle = [libm::cos(angle), libm::sin(angle)];
        centre.iter().zip(circle).map(|(m, c)| m + c + deviation * draws.normal()).collect()
    }

    fn moments(&self) -> (Vec<f64>, Vec<f64>) {
        let n = self.centres.len() as f64;
        let mean = |axis: usize| self.centres.iter().map(|c| c[axis]).sum::<f64>() / n;
        let variance = |axis: usize| {
            let spread = self.centres.iter().map(|c| (c[axis] - mean(axis)).powi(2)).sum::<f64>() / n;
            spread + 0.5 + self.variance
        };
        (vec![mean(0), mean(1)], vec![variance(0), variance(1)])
    }

    fn log_density(&self, point: &[f64]) -> Option<f64> {
        let &[x, y] = point else { return None };
        let one = |centre: &[f64; 2]| {
            let r = f64::hypot(x - centre[0], y - centre[1]);
            ln_i0_scaled(r / self.variance) - (r - 1.0).powi(2) / (2.0 * self.variance)
        };
        let terms: Vec<f64> = self.centres.iter().map(one).collect();
        let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = terms.iter().map(|t| (t - top).exp()).sum();
        Some(top + sum.ln() - (TAU * self.variance * terms.len() as f64).ln())
    }

    fn entropy(&self) -> Option<f64> {
        Some(self.entropy)
    }
}

/// ln(e⁻ᶻ I₀(z)) for z ≥ 0: the power series below 25, the asymptotic series above, both to rounding.
///
/// Reference: Abramowitz, Stegun 1964, 9.6.12 and 9.7.1.
fn ln_i0_scaled(z: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    if z < 25.0 {
        for k in 1..100 {
            term *= (z / (2.0 * f64::from(k))).powi(2);
            sum += term;
        }
        return sum.ln() - z;
    }
    for k in 1..25 {
        term *= f64::from(2 * k - 1).powi(2) / (8.0 * z * f64::from(k));
        sum += term;
    }
    sum.ln() - 0.5 * (TAU * z).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bessel_function() {
        // mpmath: log(besseli(0, z)) - z at 30 digits.
        for (z, expected) in [
            (0.0, 0.0),
            (1.0, -0.764_085_641_492_821),
            (24.9, -2.521_247_044_053_312),
            (25.1, -2.525_288_775_386_073),
            (500.0, -4.025_992_331_893_304),
        ] {
            assert!((ln_i0_scaled(z) - expected).abs() < 1e-13, "z = {z}");
        }
    }

    #[test]
    fn mass_and_entropy_by_quadrature() {
        let step = 0.022;
        let (mut mass, mut entropy) = (0.0, 0.0);
        for i in 0..290 {
            for j in 0..200 {
                let point = [-3.19 + step * f64::from(i), -2.2 + step * f64::from(j)];
                let log = OLYMPICS.log_density(&point).unwrap_or(f64::NAN);
                mass += log.exp() * step * step;
                entropy -= log * log.exp() * step * step;
            }
        }
        assert!((mass - 1.0).abs() < 1e-9, "{mass}");
        assert!((entropy - OLYMPICS.entropy).abs() < 1e-6, "{entropy}");
    }
}
