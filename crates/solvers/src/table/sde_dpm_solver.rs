//! SDE-DPM-Solver++ of second order: the exponential integrator of the λ-family with x₀ linear in log ρ, for scalar processes.
//!
//! With `ρ'/ρ = e^{−h}` and `k = (1 + λ²) h`:
//! `x' = (σ'/σ) e^{−λ²h} x + α' (1 − e^{−k}) D₀ + α' w D₁ + σ' √(1 − e^{−2λ²h}) z`, `D₁ = (x₀ − x₀ at the time before)·h/h_before`; w is `½ (1 − e^{−k})` in
//! the midpoint variant, and exact, `1 − (1 − e^{−k})/k`, in the heun variant. With D₁ = 0 it is stochastic DDIM.
//!
//! Order 2, of mean and covariance.
//!
//! Reference: Lu et al. 2022, arXiv 2211.01095, SDE-DPM-Solver++(2M), for λ = 1; Zhang, Tao, Chen 2022, arXiv 2206.05564, Theorem 1, for one prediction and any λ.
//! Differs: what implementations call η is λ² here.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::dpm_solver::{differences, scales};
use super::exponential::{Degrees, multistep};
use super::{Multistep, Table, Update};
use crate::Result;
use crate::error::in_range;

/// The weight of the difference of two predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slope {
    /// Half of the prediction's weight: as published.
    Midpoint,
    /// That of a linear interpolation.
    Heun,
}

/// SDE-DPM-Solver++(2M).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SdeDpmSolver {
    /// 0: DPM-Solver++(2M) on the probability flow; 1: the reverse SDE, as published.
    pub lambda: f64,
    /// How the difference is weighted.
    pub slope: Slope,
    /// Whether the last step uses one prediction, as is usual for fewer than 15 steps; a step that ends without noise does anyway.
    pub lower_final: bool,
}

impl Multistep for SdeDpmSolver {
    fn name(&self) -> &'static str {
        match self.slope {
            Slope::Midpoint => "sde-dpm++-2m",
            Slope::Heun => "sde-dpm++-2m-heun",
        }
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("lambda", self.lambda, 0.0, 100.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "sde-dpm-solver")?;
        let (name, square) = (self.name(), self.lambda * self.lambda);
        let degrees = Degrees { degree: 1, lower_final: self.lower_final };
        multistep(
            (name, Prediction::Data),
            grid,
            |i| degrees.at(sde, grid, i),
            |nodes, to| {
                let (alpha, sigma, clock) = scales(name, sde, nodes[0])?;
                let (alpha_next, sigma_next, clock_next) = scales(name, sde, to)?;
                let (ratio, h) = (sigma_next / sigma * (alpha / alpha_next), clock - clock_next);
                let z = (1.0 + square) * h;
                let gain = -(-z).exp_m1();
                let slope = match self.slope {
                    Slope::Midpoint => 0.5 * gain,
                    Slope::Heun => 1.0 - gain / z,
                };
                let places: Vec<f64> = nodes[1..].iter().map(|&t| (clock - sde.clock(t)) / h).collect();
                let terms = differences(&places, [gain, slope, 0.0]);
                let terms = terms.into_iter().map(|w| Op::Scalar(alpha_next * w)).collect();
                // Powers of ρ'/ρ, not exponentials of h, which is infinite where the noise vanishes.
                let carry = sigma_next / sigma * ratio.powf(square);
                let spread = sigma_next * (1.0 - ratio.powf(2.0 * square)).max(0.0).sqrt();
                Ok(Update::new(nodes[0], to, Op::Scalar(carry), terms).with_noise(Op::Scalar(spread)))
            },
        )
    }
}
