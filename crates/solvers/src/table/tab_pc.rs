//! tAB-DEIS, corrected: the predictor of degree r, then the polynomial of degree r + 1 that passes through ε at the predicted point, too; gDDIM's corrector.
//!
//! `ū = Ψ u + Σ_j C_j ε_j`, `ε̄ = ε(ū, t')`, `u' = Ψ u + C̄ ε̄ + Σ_j C̄_j ε_j`, all coefficients those of `exponential.rs`, C̄ with the node t' besides. ε at u' is
//! evaluated afresh and is what later steps look back at, so a step is two evaluations. As rows of a table the second is
//! `u' = ū + C̄ ε̄ + Σ_j (C̄_j − C_j) ε_j`, and every other prediction of the history is an ε̄ that no later row looks at. A step that ends
//! without noise is DDIM's.
//!
//! Order of convergence r + 2.
//!
//! Reference: Zhang, Tao, Chen 2022, arXiv 2206.05564, appendix on predictor–corrector sampling, which names the corrector; Hairer, Nørsett, Wanner 1993,
//! section III.1, for the mode (PECE).
//! Differs: works in t, as the authors' predictor does, with exact coefficients.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::exponential::{Degrees, Variable, coefficients};
use super::{Form, Multistep, Tab, Table, Update, checked};
use crate::Result;
use crate::error::in_range;

/// tAB-DEIS with a corrector, by the degree of its predictor: r = 0 … 2; order of convergence r + 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TabPc {
    /// r, the degree of the predictor's polynomial.
    pub degree: usize,
}

/// Predictions of which every other one belongs to a predicted point and is not used again, the newest first and used.
fn spaced(terms: &[Op]) -> Vec<Op> {
    let mut row = Vec::with_capacity(2 * terms.len());
    for term in terms {
        row.extend([term.clone(), Op::ZERO]);
    }
    row.pop();
    row
}

impl Multistep for TabPc {
    fn name(&self) -> &'static str {
        ["tab0-pc", "tab1-pc", "tab2-pc"].get(self.degree).copied().unwrap_or("tab-pc")
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("degree", self.degree as f64, 0.0, 2.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "tab-pc")?;
        let (name, times) = (self.name(), grid.times());
        let degrees = Degrees { degree: self.degree, lower_final: false };
        let mut updates = Vec::new();
        for i in 0..grid.steps() {
            let nodes: Vec<f64> = times[i - degrees.at(sde, grid, i)..=i].iter().rev().copied().collect();
            let (from, to) = (times[i], times[i + 1]);
            let predictor = Tab::coefficients(sde, &nodes, to)?;
            let row = Update::new(from, to, sde.transition(to, from), spaced(&predictor));
            updates.push(checked(name, row.of_step(i))?);
            if sde.factor(to).max_abs() == 0.0 {
                continue;
            }
            let through: Vec<f64> = std::iter::once(to).chain(nodes).collect();
            let corrector = coefficients(sde, (Form::Noise, Variable::Time), &through, (from, to))?;
            let changes = corrector[1..].iter().zip(&predictor).map(|(c, p)| Ok(c.sub(p)?));
            let changes = changes.collect::<Result<Vec<Op>>>()?;
            let terms = std::iter::once(corrector[0].clone()).chain(spaced(&changes)).collect();
            updates.push(checked(name, Update::new(to, to, Op::IDENTITY, terms).of_step(i))?);
        }
        Ok(Table { of: Prediction::Noise, updates })
    }
}
