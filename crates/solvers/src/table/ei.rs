//! The exponential integrator with the *score* frozen over a step: the baseline that shows why DEIS freezes ε.
//!
//! `u' = Ψ u − [∫_t^{t'} ½ Ψ(t',τ) G Gᵀ dτ] s`, the integral by Gauss–Legendre in the process's clock. For VP the bracket is `1 − Ψ`.
//!
//! Reference: Zhang, Chen 2022, arXiv 2204.13902, Eq. (8).

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::exponential::nodes_in_clock;
use super::{Multistep, Table, Update};
use crate::Result;

/// The exponential integrator in the score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ei;

impl Multistep for Ei {
    fn name(&self) -> &'static str {
        "ei-score"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        sde_core::grid::require_signal(sde, grid.start(), "the exponential integrator")?;
        Table::of_steps(self.name(), Prediction::Score, grid, |from, to| {
            let mut term = Op::ZERO;
            for node in nodes_in_clock(sde, (from, to), true)? {
                let half = sde.transition(to, node.t).mul(&sde.diffusion(node.t))?;
                term = term.sub(&half.scale(0.5 * node.weight / sde.clock_rate(node.t)))?;
            }
            Ok(Update::new(from, to, sde.transition(to, from), vec![term]))
        })
    }
}
