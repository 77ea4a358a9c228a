//! tAB-DEIS: the exponential integrator with a polynomial of degree r in t through the last r + 1 predicted ε, for any linear process.
//!
//! `u' = Ψ u + Σ_j C_j ε_j`, `C_j = ∫_t^{t'} ℓ_j d[Ψ(t',τ) R_τ]` (`exponential.rs`); for a scalar process this is `α' ∫ ℓ_j(t(ρ)) dρ`. Degree 0 is
//! DDIM, exactly. The first steps use the degree their history allows.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, Eq. (15) and Algorithm 1; Zhang, Tao, Chen 2022, arXiv 2206.05564, Eq. (19).
//! Differs: the authors' code integrates in t by a left Riemann sum of 10 000 nodes, right to about 1e-4; this is right to 1e-12.

use sde_core::{LinearSde, Op, TimeGrid};

use super::exponential::{Degrees, Variable, coefficients, multistep};
use super::{Form, Multistep, Table, Update};
use crate::Result;
use crate::error::in_range;

/// tAB-DEIS of a polynomial degree: r = 0 … 3 in the paper; order of convergence r + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tab {
    /// r, the degree of the polynomial.
    pub degree: usize,
}

impl Tab {
    /// The coefficients C_j of a step from `nodes[0]` to `to`, with the polynomial through all `nodes` (newest first).
    ///
    /// # Errors
    /// When a coefficient is not finite, or the clock is not, at an end of the step.
    pub fn coefficients(sde: &dyn LinearSde, nodes: &[f64], to: f64) -> Result<Vec<Op>> {
        coefficients(sde, (Form::Noise, Variable::Time), nodes, (nodes[0], to))
    }
}

impl Multistep for Tab {
    fn name(&self) -> &'static str {
        ["tab0", "tab1", "tab2", "tab3"].get(self.degree).copied().unwrap_or("tab")
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("degree", self.degree as f64, 0.0, 3.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "tab")?;
        let degrees = Degrees { degree: self.degree, lower_final: false };
        let of = Form::Noise.prediction();
        multistep(
            (self.name(), of),
            grid,
            |i| degrees.at(sde, grid, i),
            |nodes, to| {
                let terms = Self::coefficients(sde, nodes, to)?;
                Ok(Update::new(nodes[0], to, sde.transition(to, nodes[0]), terms))
            },
        )
    }
}
