//! Adams–Bashforth of degree r in log ρ, on ε or on x₀, for any linear process: `u' = A u + Σ_j C_j p_j` with the weights of
//! `exponential.rs`, for a scalar process `α' ∫ ℓ_j(log ρ) dρ` on ε and `σ' ∫ ℓ_j(log ρ) d(1/ρ)` on x₀.
//!
//! On ε it is the log-ρ variant of DEIS; on x₀ the multistep DPM-Solver++ with its coefficients exact: its second order is what
//! implementations call the heun variant, and its third has the weight of the second difference that the published one halves.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, section 4 (the log-ρ variant); Lu et al. 2022, arXiv 2211.01095, Proposition 4.1 and Algorithm 2.

use sde_core::{LinearSde, TimeGrid};

use super::exponential::{Degrees, Variable, coefficients, multistep};
use super::{Form, Multistep, Table, Update};
use crate::Result;
use crate::error::in_range;

/// Adams–Bashforth in log ρ of a degree r = 0 … 3; order of convergence r + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogAb {
    /// The prediction that is interpolated.
    pub form: Form,
    /// r, the degree of the polynomial.
    pub degree: usize,
    /// Whether the last steps are of lower degree, as is usual for fewer than 15 steps; a step that ends without noise is of degree 0 anyway.
    pub lower_final: bool,
}

impl Multistep for LogAb {
    fn name(&self) -> &'static str {
        let names = match self.form {
            Form::Noise => ["log-ab0", "log-ab1", "log-ab2", "log-ab3"],
            Form::Data => ["data-ab0", "data-ab1", "data-ab2", "data-ab3"],
        };
        names.get(self.degree).copied().unwrap_or("log-ab")
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("degree", self.degree as f64, 0.0, 3.0)?;
        // On either form the polynomial needs log ρ at its start.
        if self.form == Form::Noise || self.degree > 0 {
            sde_core::grid::require_signal(sde, grid.start(), "log-ab")?;
        }
        let degrees = Degrees { degree: self.degree, lower_final: self.lower_final };
        let of = self.form.prediction();
        multistep(
            (self.name(), of),
            grid,
            |i| degrees.at(sde, grid, i),
            |nodes, to| {
                let terms = coefficients(sde, (self.form, Variable::Clock), nodes, (nodes[0], to))?;
                Ok(Update::new(nodes[0], to, self.form.carry(sde, nodes[0], to)?, terms))
            },
        )
    }
}
