//! DPM2, the exponential midpoint rule: a DDIM step half way in log ρ, then the whole step with the ε found there; with η > 0 its ancestral form.
//!
//! With m half way between t and the end, `u_m = Ψ(m,t) u + D(m,t) ε_t`, `u' = Ψ(t',t) u + D(t',t) ε_m`, `D(b,a) = R_b − Ψ(b,a) R_a`. As rows of a table
//! the second is `u' = Ψ(t',m) u_m + D(t',t) ε_m − Ψ(t',m) D(m,t) ε_t`. The ancestral form steps to the smaller noise `√(σ'² − s²)`, s that of DDIM's η, and
//! adds `s z`. A step that ends without noise is Euler's.
//!
//! Order 2, with η > 0 of mean and covariance.
//!
//! Reference: Lu et al. 2022, arXiv 2206.00927, Algorithm 1 (DPM-Solver-2); the ancestral form is that of k-diffusion.
//! Differs: deterministic, it exists for any linear process.

use sde_core::{LinearSde, Prediction, TimeGrid};

use super::{Ddim, Form, Multistep, Table, Update, checked};
use crate::Result;
use crate::error::in_range;

/// DPM2 with stochasticity η in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dpm2 {
    /// 0: deterministic; 1: ancestral.
    pub eta: f64,
}

impl Dpm2 {
    fn rows(&self, sde: &dyn LinearSde, (from, to): (f64, f64), step: usize) -> Result<Vec<Update>> {
        let ddim = Ddim { eta: self.eta, form: Form::Noise };
        // R' less what is injected: the factor of the noise that the deterministic part leads to.
        let (_, kept, inject) = ddim.parts(sde, from, to)?;
        let psi = sde.transition(to, from);
        let whole = kept.sub(&psi.mul(&sde.factor(from))?)?;
        let checked = |update: Update| checked(self.name(), update.of_step(step));
        if kept.max_abs() == 0.0 {
            return Ok(vec![checked(Update::new(from, to, psi, vec![whole]).with_noise(inject))?]);
        }
        // The clock where the noise is `kept`; equal to that of `to` for the deterministic rule.
        let end = sde.clock(to) + (kept.max_abs() / sde.factor(to).max_abs()).ln();
        let middle = sde.time_of_clock(0.5 * (sde.clock(from) + end));
        let there = sde.transition(middle, from);
        let half = sde.factor(middle).sub(&there.mul(&sde.factor(from))?)?;
        let onwards = sde.transition(to, middle);
        let undo = onwards.mul(&half)?.scale(-1.0);
        Ok(vec![
            checked(Update::new(from, middle, there, vec![half]))?,
            checked(Update::new(middle, to, onwards, vec![whole, undo]).with_noise(inject))?,
        ])
    }
}

impl Multistep for Dpm2 {
    fn name(&self) -> &'static str {
        "dpm2"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("eta", self.eta, 0.0, 1.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "dpm2")?;
        let pairs = grid.times().windows(2).enumerate();
        let rows = pairs.map(|(step, pair)| self.rows(sde, (pair[0], pair[1]), step));
        Ok(Table { of: Prediction::Noise, updates: rows.collect::<Result<Vec<_>>>()?.concat() })
    }
}
