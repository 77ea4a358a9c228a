//! The exponential integrator with the *score* frozen over a step: the baseline that shows why DEIS freezes ε.
//!
//! `u' = Ψ u − [∫_t^{t'} ½ Ψ(t',τ) G Gᵀ dτ] s`, the integral by Gauss–Legendre in the process's clock. For VP the bracket is `1 − Ψ`.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, Eq. (8).

use sde_core::quadrature::GaussLegendre;
use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Multistep, Table, Update};
use crate::Result;

const NODES: usize = 96;

/// The exponential integrator in the score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ei;

impl Multistep for Ei {
    fn name(&self) -> &'static str {
        "ei-score"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        sde_core::grid::require_signal(sde, grid.start(), "the exponential integrator")?;
        let rule = GaussLegendre::new(NODES);
        Table::of_steps(self.name(), Prediction::Score, grid, |from, to| {
            let mut term = Op::ZERO;
            for (clock, weight) in rule.on(sde.clock(from), sde.clock(to)) {
                let tau = sde.time_of_clock(clock);
                let half = sde.transition(to, tau).mul(&sde.diffusion(tau))?;
                term = term.sub(&half.scale(0.5 * weight / sde.clock_rate(tau)))?;
            }
            Ok(Update::new(from, to, sde.transition(to, from), vec![term]))
        })
    }
}
