//! The exact step of the λ-family for a point mass: stochastic gDDIM, for any linear process.
//!
//! `u' ~ N(Ψ u + (Ψ̂ − Ψ) R ε, P)`, Ψ̂ the transition of `F + ½ (1 + λ²) G Gᵀ Σ⁻¹` and `P = Σ' − Ψ̂ Σ Ψ̂ᵀ`. With `Ψ̂ = R' X R⁻¹` (`contraction.rs`) the factor of
//! ε is `R' X − Ψ R`, and `P = R' (I − X Xᵀ) R'ᵀ`. λ = 0 is DDIM (X = I), λ = 1 ancestral sampling; for a scalar process this is stochastic DDIM,
//! `P = σ'² (1 − (ρ'/ρ)^{2λ²})`.
//!
//! Reference: Zhang, Tao, Chen 2022, arXiv 2206.05564, Theorem 1, Eq. (22)–(23); Zhang 2023 (thesis), Eq. (7.14), (7.22)–(7.23).
//! Differs: the thesis prints s where s² is meant, and the noise term of P's equation with the sign it has forward in time; the authors' code leaves out
//! the transposition there, which makes negative variances.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::contraction::Contraction;
use super::{Multistep, Table, Update};
use crate::Result;
use crate::error::in_range;

/// Stochastic gDDIM with any λ ≥ 0.
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
            let (psi, end) = (sde.transition(to, from), sde.factor(to));
            let undone = psi.mul(&sde.factor(from))?;
            if end.max_abs() == 0.0 {
                return Ok(Update::new(from, to, psi, vec![undone.scale(-1.0)]));
            }
            let Contraction { kept, fresh } = Contraction::new(sde, self.lambda, (from, to))?;
            let term = end.mul(&kept)?.sub(&undone)?;
            let update = Update::new(from, to, psi, vec![term]);
            Ok(if fresh == Op::ZERO { update } else { update.with_noise(end.mul(&fresh)?) })
        })
    }
}
