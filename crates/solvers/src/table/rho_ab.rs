//! ρAB-DEIS: Adams–Bashforth of degree r in ρ with variable steps, `u' = Ψ u + α' Σ_j ε_j ∫_ρ^{ρ'} ℓ_j dρ`; for any linear process with ρ the
//! exponential of its clock (`exponential.rs`). Also known as the linear multistep sampler (LMS) of order r + 1.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, Proposition 3 and section 4.

use sde_core::{LinearSde, TimeGrid};

use super::exponential::{Variable, coefficients, multistep};
use super::{Form, Multistep, Table, Update};
use crate::Result;
use crate::error::in_range;

/// ρAB-DEIS of a degree r = 0 … 3; order of convergence r + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RhoAb {
    /// r, the degree of the polynomial.
    pub degree: usize,
}

impl Multistep for RhoAb {
    fn name(&self) -> &'static str {
        ["rho-ab0", "rho-ab1", "rho-ab2", "rho-ab3"].get(self.degree).copied().unwrap_or("rho-ab")
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("degree", self.degree as f64, 0.0, 3.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "rho-ab")?;
        // In ρ the degree need not fall where the noise vanishes.
        let of = Form::Noise.prediction();
        multistep(
            (self.name(), of),
            grid,
            |i| self.degree.min(i),
            |nodes, to| {
                let terms = coefficients(sde, (Form::Noise, Variable::Rho), nodes, (nodes[0], to))?;
                Ok(Update::new(nodes[0], to, sde.transition(to, nodes[0]), terms))
            },
        )
    }
}
