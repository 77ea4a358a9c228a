//! The multistep exponential integrator in the noise of a Cholesky factor: the baseline that shows why gDDIM takes R.
//!
//! Any factor `L Lᵀ = Σ` defines a noise `ε_L = −Lᵀ s`. With it interpolated in t in place of ε,
//!
//! `u' = Ψ u + Σ_j C_j ε_L(t_j)`, `C_j = ∫_t^{t'} ½ Ψ(t',τ) G Gᵀ L_τ⁻ᵀ ℓ_j(τ) dτ`.
//!
//! Along the flow of a point mass ε is constant and ε_L is not, so for a matrix process few steps fail. The rows multiply the score, `B_j = −C_j L(t_j)ᵀ`, so
//! that any network serves. L has no equation of its own to integrate by parts with: the integral is taken as it stands, by Gauss–Legendre in the
//! clock. For a scalar process L = R, and this is `tab` of the degree.
//!
//! Reference: Zhang, Tao, Chen 2022, arXiv 2206.05564, Eq. (19) with L, and the comparison of L_t with R_t; Dockhorn, Vahdat, Kreis 2021, arXiv 2112.07068,
//! for L.

use sde_core::quadrature::lagrange;
use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::exponential::{multistep, nodes_in_clock};
use super::{Multistep, Table, Update};
use crate::Result;
use crate::error::in_range;

/// The exponential integrator with the Cholesky factor, of a degree r = 0 … 3; order of convergence r + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CholeskyAb {
    /// r, the degree of the polynomial.
    pub degree: usize,
}

impl CholeskyAb {
    /// The coefficients C_j of a step from `nodes[0]` to `to`, as factors of ε_L, with the polynomial through all `nodes` (newest first).
    ///
    /// # Errors
    /// When Σ is not positive definite on the step, or the clock is not finite at an end of it.
    pub fn coefficients(sde: &dyn LinearSde, nodes: &[f64], to: f64) -> Result<Vec<Op>> {
        let mut terms = vec![Op::ZERO; nodes.len()];
        for node in nodes_in_clock(sde, (nodes[0], to), true)? {
            let back = sde.covariance(node.t).cholesky()?.inverse()?.transpose();
            let slope = sde.transition(to, node.t).mul(&sde.diffusion(node.t))?.mul(&back)?;
            let slope = slope.scale(0.5 * node.weight / sde.clock_rate(node.t));
            for (j, term) in terms.iter_mut().enumerate() {
                *term = term.add(&slope.scale(lagrange(nodes, j, node.t)))?;
            }
        }
        Ok(terms)
    }
}

impl Multistep for CholeskyAb {
    fn name(&self) -> &'static str {
        ["chol-ab0", "chol-ab1", "chol-ab2", "chol-ab3"].get(self.degree).copied().unwrap_or("chol-ab")
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("degree", self.degree as f64, 0.0, 3.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "chol-ab")?;
        multistep(
            (self.name(), Prediction::Score),
            grid,
            |i| self.degree.min(i),
            |nodes, to| {
                let terms = Self::coefficients(sde, nodes, to)?;
                let of_score = |(c, &t): (&Op, &f64)| -> Result<Op> {
                    Ok(c.mul(&sde.covariance(t).cholesky()?.transpose())?.scale(-1.0))
                };
                let terms = terms.iter().zip(nodes).map(of_score).collect::<Result<_>>()?;
                Ok(Update::new(nodes[0], to, sde.transition(to, nodes[0]), terms))
            },
        )
    }
}
