//! Euler–Maruyama for the family of reverse SDEs with the same marginals, `du = [F u − ½(1 + λ²) G Gᵀ s] dt + λ G dw̄`.
//!
//! `u' = u − h [F u − ½(1 + λ²) G Gᵀ s] + λ √h G z`, h = t − t' > 0. λ = 1 is the reverse SDE, λ = 0 Euler on the probability flow.
//!
//! Reference: Song et al. 2021, arXiv 2011.13456, Eq. (6); Zhang 2023 (thesis), Eq. (6.4) for the λ-family.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Multistep, Table, Update};
use crate::Result;
use crate::error::in_range;

/// Euler–Maruyama with any λ ≥ 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EulerMaruyama {
    /// 0: the probability flow; 1: the reverse SDE.
    pub lambda: f64,
}

impl Multistep for EulerMaruyama {
    fn name(&self) -> &'static str {
        "em"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("lambda", self.lambda, 0.0, 100.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "euler–maruyama")?;
        Table::of_steps(self.name(), Prediction::Score, grid, |from, to| {
            let h = from - to;
            let diffusion = sde.diffusion(from);
            let carry = Op::IDENTITY.sub(&sde.drift(from).scale(h))?;
            let term = diffusion.scale(0.5 * h * (1.0 + self.lambda * self.lambda));
            let update = Update::new(from, to, carry, vec![term]);
            // Without noise it is a rule of the flow, which runs either way in time; then there is no root.
            if self.lambda == 0.0 {
                return Ok(update);
            }
            Ok(update.with_noise(diffusion.sqrt()?.scale(self.lambda * h.sqrt())))
        })
    }
}
