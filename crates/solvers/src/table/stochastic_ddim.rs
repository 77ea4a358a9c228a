//! The exact step of the λ-family for a point mass: the stochastic DDIM of gDDIM, for scalar processes.
//!
//! `x' ~ N((α'/α) x + (Ψ̂ − α'/α) σ ε, s²)`, `Ψ̂ = (σ'/σ)^{1+λ²} (α/α')^{λ²}`, `s² = σ'² (1 − (ρ'/ρ)^{2λ²})`. λ = 0 is DDIM, λ = 1 ancestral sampling.
//!
//! Reference: Zhang, Tao, Chen 2022, arXiv 2206.05564, Theorem 1; Zhang 2023 (thesis), Eq. (7.14).
//! Differs: the thesis prints s where s² is meant.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Multistep, Table, Update, alpha_sigma};
use crate::Result;
use crate::error::in_range;

/// Stochastic DDIM with any λ ≥ 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StochasticDdim {
    /// 0: the probability flow; 1: the reverse SDE.
    pub lambda: f64,
}

impl Multistep for StochasticDdim {
    fn name(&self) -> &'static str {
        "stochastic-ddim"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("lambda", self.lambda, 0.0, 100.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "stochastic ddim")?;
        Table::of_steps(self.name(), Prediction::Noise, grid, |from, to| {
            let (alpha, sigma) = alpha_sigma(self.name(), sde, from)?;
            let (alpha_next, sigma_next) = alpha_sigma(self.name(), sde, to)?;
            let psi = alpha_next / alpha;
            let lambda_2 = self.lambda * self.lambda;
            let ratio = sigma_next / sigma / psi;
            // σ'/σ (ρ'/ρ)^{λ²} is Ψ̂ without overflow at small α.
            let psi_hat = sigma_next / sigma * ratio.powf(lambda_2);
            let spread = sigma_next * (-(2.0 * lambda_2 * ratio.ln()).exp_m1()).max(0.0).sqrt();
            let term = Op::Scalar((psi_hat - psi) * sigma);
            Ok(Update::new(from, to, Op::Scalar(psi), vec![term]).with_noise(Op::Scalar(spread)))
        })
    }
}
