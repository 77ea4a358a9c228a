//! EDM's stochastic sampler: before every step noise is added, `ρ̂ = (1 + γ) ρ`, `ŷ = y + √(ρ̂² − ρ²) S_noise z`, y = u/α; then the step is taken
//! from there, by Heun's rule in the paper, by any Runge–Kutta method here. For any linear process: `û = Ψ u + (Σ̂ − Ψ Σ Ψᵀ)^{1/2} S_noise z`.
//!
//! γ = min(S_churn/N, √2 − 1) where S_min ≤ ρ ≤ S_max, and 0 elsewhere. The noise is a row of its own, which evaluates nothing.
//!
//! With S_noise = 1 mean and covariance converge with the order of the solver: what is added is what the process would have added.
//!
//! Reference: Karras et al. 2022, arXiv 2206.00364, Algorithm 2.
//! Differs: for any linear process, ρ the exponential of its clock, not σ(t) = t alone; the first step may reach beyond the span of the process.

use sde_core::{LinearSde, Op, TimeGrid};

use super::runge_kutta::RungeKutta;
use super::{Multistep, Table, Update, checked};
use crate::Result;
use crate::error::in_range;

/// The sampler of EDM with churn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Churn {
    /// How a step is taken; [`RungeKutta::EDM`] in the paper.
    pub solver: RungeKutta,
    /// S_churn: 0 adds no noise, N (√2 − 1) the most.
    pub churn: f64,
    /// S_min, the smallest ρ at which noise is added.
    pub lowest: f64,
    /// S_max, the largest.
    pub highest: f64,
    /// S_noise, the factor of the noise: a little above 1 in the paper.
    pub noise: f64,
}

impl Multistep for Churn {
    fn name(&self) -> &'static str {
        "churn"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("churn", self.churn, 0.0, f64::MAX)?;
        in_range("smallest noise-to-signal ratio of churn", self.lowest, 0.0, f64::INFINITY)?;
        in_range("largest noise-to-signal ratio of churn", self.highest, self.lowest, f64::INFINITY)?;
        in_range("factor of the noise of churn", self.noise, 0.0, f64::MAX)?;
        sde_core::grid::require_signal(sde, grid.start(), "churn")?;
        let most = (self.churn / grid.steps() as f64).min(std::f64::consts::SQRT_2 - 1.0);
        let mut updates = Vec::new();
        for (step, pair) in grid.times().windows(2).enumerate() {
            let (from, to) = (pair[0], pair[1]);
            let rho = sde.clock(from).exp();
            let gamma = if (self.lowest..=self.highest).contains(&rho) { most } else { 0.0 };
            let noisier = if gamma > 0.0 { sde.time_of_clock(((1.0 + gamma) * rho).ln()) } else { from };
            if gamma > 0.0 {
                let psi = sde.transition(noisier, from);
                let kept = psi.mul(&sde.covariance(from))?.mul(&psi.transpose())?;
                let fresh = sde.covariance(noisier).sub(&kept)?;
                // The least churn may round to less than nothing.
                let fresh = fresh.as_scalar().map_or(fresh, |variance| Op::Scalar(variance.max(0.0)));
                let spread = fresh.sqrt()?.scale(self.noise);
                let row = Update::new(from, noisier, psi, Vec::new()).with_noise(spread);
                updates.push(checked(self.name(), row.of_step(step))?);
            }
            let last = step + 1 == grid.steps();
            let rows = if last { RungeKutta::last_rows } else { RungeKutta::rows };
            updates.extend(rows(&self.solver, sde, noisier, to, step)?);
        }
        Ok(Table { of: self.solver.of(), updates })
    }
}
