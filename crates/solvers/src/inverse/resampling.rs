//! Tables that go back: every block of steps is run several times, with a jump up to the noise of its start in between,
//!
//! `u(t) ← Ψ(t, s) u(s) + N z`, `N Nᵀ = Σ_t − Ψ Σ_s Ψᵀ`,
//!
//! which is the forward process itself. Where something changes the state between steps, as [`Replacement`](super::Replacement) does, the
//! rest of the state gets the time to agree with it. Jumps are rows without evaluations; the evaluations are `times` as many.
//!
//! Reference: Lugmayr et al. 2022, arXiv 2201.09865, Algorithm 1 and appendix B, whose jump length is `jump` and whose r is `times`.
//! Differs: blocks are counted from the noise on.

use sde_core::{LinearSde, TimeGrid};

use crate::error::in_range;
use crate::table::{Multistep, Table, Update};
use crate::{Error, Result};

/// A rule of tables whose blocks of `jump` steps are run `times` times. The rule must not look at predictions of earlier steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resampled<M> {
    /// The rule.
    pub rule: M,
    /// The steps of a block; the last block may have fewer.
    pub jump: usize,
    /// How often a block is run; 1 changes nothing.
    pub times: usize,
}

/// The rows of a table, step by step.
fn steps(table: &Table) -> Vec<Vec<Update>> {
    let mut steps: Vec<Vec<Update>> = Vec::new();
    for update in &table.updates {
        match steps.last_mut() {
            Some(step) if step[0].step == update.step => step.push(update.clone()),
            _ => steps.push(vec![update.clone()]),
        }
    }
    steps
}

/// Whether a step looks at predictions from before it.
fn looks_back(step: &[Update]) -> bool {
    let mut own = 0;
    step.iter().any(|row| {
        own += usize::from(!row.terms.is_empty());
        row.terms.iter().rposition(|term| term.max_abs() != 0.0).is_some_and(|at| at >= own)
    })
}

/// The forward process from s up to t.
fn up(sde: &dyn LinearSde, s: f64, t: f64) -> Result<Update> {
    let psi = sde.transition(t, s);
    let kept = psi.mul(&sde.covariance(s))?.mul(&psi.transpose())?;
    let added = sde.covariance(t).sub(&kept)?.sqrt()?;
    Ok(Update::new(s, t, psi, Vec::new()).with_noise(added))
}

impl<M: Multistep> Multistep for Resampled<M> {
    fn name(&self) -> &'static str {
        self.rule.name()
    }

    /// # Errors
    /// Besides those of the rule, [`Error::History`] where it looks back.
    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("jump", self.jump as f64, 1.0, f64::MAX)?;
        in_range("times of a block", self.times as f64, 1.0, f64::MAX)?;
        let table = self.rule.table(sde, grid)?;
        let steps = steps(&table);
        if self.times > 1 && steps.iter().any(|step| looks_back(step)) {
            return Err(Error::History {
                sampler: self.name(),
                hint: "a jump makes them stale; take a one-step sampler, such as ddim, ddpm or tab0, or a Runge-Kutta one",
            });
        }
        let mut rows: Vec<Vec<Update>> = Vec::new();
        for block in steps.chunks(self.jump) {
            for pass in 0..self.times {
                if pass > 0 {
                    let ends = (block.last().and_then(|step| step.last()), block[0].first());
                    if let (Some(last), Some(first)) = ends {
                        rows.push(vec![up(sde, last.to, first.from)?]);
                    }
                }
                rows.extend(block.iter().cloned());
            }
        }
        let numbered = rows.into_iter().enumerate();
        let updates =
            numbered.flat_map(|(i, step)| step.into_iter().map(move |row| row.of_step(i))).collect();
        Ok(Table { of: table.of, updates })
    }
}
