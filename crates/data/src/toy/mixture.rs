//! Mixtures of isotropic Gaussians: eight modes on a circle, two modes 1/5–4/5, three modes on a line.
//!
//! `p(x) = Σ_k w_k N(x; m_k, v_k I)`.
//!
//! - eight modes: centres (sin θ, cos θ), θ = 2πk/8, standard deviation 0.1, equal weights. Reference: Lai et
//!   al. 2022 (FP-Diffusion), arXiv 2210.04296, Appendix D.1.
//! - two modes: ⅕ N((−5, −5), I) + ⅘ N((5, 5), I). Reference: Song, Ermon 2019, arXiv 1907.05600, Section
//!   3.2.
//! - three modes: 0.3 N(−2/7, 0.1/49) + 0.3 N(−6/7, 0.1/49) + 0.4 N(4/7, 1/49), variances. Reference: Lai et
//!   al. 2022, as in the published code (the numbers are lost in the text).
//!
//! The entropies are integrals of −p ln p by the trapezoidal rule, which converges faster than any power of
//! its step here; a test repeats it.

use std::f64::consts::TAU;

use sde_core::noise::Draws;

use super::{Gaussians, Recipe};

/// A mixture of isotropic Gaussians.
#[derive(Debug)]
pub(super) struct Mixture {
    weights: Vec<f64>,
    means: Vec<Vec<f64>>,
    variances: Vec<f64>,
    entropy: f64,
}

pub(super) fn eight_modes() -> Mixture {
    let mean = |k: u32| {
        let (sin, cos) = (libm::sin(TAU * f64::from(k) / 8.0), libm::cos(TAU * f64::from(k) / 8.0));
        vec![sin, cos]
    };
    Mixture {
        weights: vec![0.125; 8],
        means: (0..8).map(mean).collect(),
        variances: vec![0.01; 8],
        entropy: 0.311_766_842_0,
    }
}

pub(super) fn two_modes() -> Mixture {
    Mixture {
        weights: vec![0.2, 0.8],
        means: vec![vec![-5.0, -5.0], vec![5.0, 5.0]],
        variances: vec![1.0, 1.0],
        entropy: 3.338_279_489_9,
    }
}

pub(super) fn three_modes() -> Mixture {
    Mixture {
        weights: vec![0.3, 0.3, 0.4],
        means: vec![vec![-2.0 / 7.0], vec![-6.0 / 7.0], vec![4.0 / 7.0]],
        variances: vec![0.1 / 49.0, 0.1 / 49.0, 1.0 / 49.0],
        entropy: -0.128_854_075_1,
    }
}

impl Mixture {
    fn dim(&self) -> usize {
        self.means.first().map_or(0, Vec::len)
    }

    /// ln Σ_k w_k N(x; m_k, v_k I), without underflow.
    fn log_sum(&self, point: &[f64]) -> f64 {
        let half_dim = 0.5 * self.dim() as f64;
        let components = self.weights.iter().zip(&self.means).zip(&self.variances);
        let terms: Vec<f64> = components
            .map(|((weight, mean), variance)| {
                let square: f64 = point.iter().zip(mean).map(|(x, m)| (x - m).powi(2)).sum();
                weight.ln() - half_dim * (TAU * variance).ln() - square / (2.0 * variance)
            })
            .collect();
        let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        top + terms.iter().map(|t| (t - top).exp()).sum::<f64>().ln()
    }
}

impl Recipe for Mixture {
    fn sample(&self, draws: &mut Draws) -> Vec<f64> {
        let u = draws.uniform();
        let mut passed = 0.0;
        let before = self.weights.iter().take_while(|&&w| {
            passed += w;
            passed < u
        });
        // The weights may add up to a rounding error less than one.
        let k = before.count().min(self.weights.len() - 1);
        let deviation = self.variances[k].sqrt();
        self.means[k].iter().map(|m| m + deviation * draws.normal()).collect()
    }

    fn moments(&self) -> (Vec<f64>, Vec<f64>) {
        let (mut mean, mut second) = (vec![0.0; self.dim()], vec![0.0; self.dim()]);
        for ((weight, centre), variance) in self.weights.iter().zip(&self.means).zip(&self.variances) {
            for (axis, m) in centre.iter().enumerate() {
                mean[axis] += weight * m;
                second[axis] += weight * (m * m + variance);
            }
        }
        let variance = second.iter().zip(&mean).map(|(s, m)| s - m * m).collect();
        (mean, variance)
    }

    fn log_density(&self, point: &[f64]) -> Option<f64> {
        Some(self.log_sum(point))
    }

    fn entropy(&self) -> Option<f64> {
        Some(self.entropy)
    }

    fn gaussians(&self) -> Option<Gaussians<'_>> {
        Some((&self.weights, &self.means, &self.variances))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mass_and_entropy_by_quadrature() {
        for (mixture, reach, step) in
            [(eight_modes(), 2.0, 0.02), (two_modes(), 14.0, 0.2), (three_modes(), 2.5, 0.005)]
        {
            let n = (2.0 * reach / step) as usize;
            let at = |i: usize| -reach + step * i as f64;
            let values: Vec<f64> = match mixture.dim() {
                1 => (0..n).map(|i| mixture.log_sum(&[at(i)])).collect(),
                _ => (0..n * n).map(|i| mixture.log_sum(&[at(i / n), at(i % n)])).collect(),
            };
            let volume = step.powi(mixture.dim() as i32);
            let mass: f64 = values.iter().map(|l| l.exp() * volume).sum();
            let entropy: f64 = values.iter().map(|l| -l * l.exp() * volume).sum();
            assert!((mass - 1.0).abs() < 1e-9, "{mass}");
            assert!((entropy - mixture.entropy).abs() < 1e-9, "{entropy}");
        }
    }
}
