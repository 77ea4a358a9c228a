//! Pseudo numerical methods: Adams–Bashforth's weights for equal steps on ε, and DDIM as the transfer, `u' = Ψ u + (R' − Ψ R) ε̄`, for any linear process.
//!
//! `ε̄ = Σ_j w_j ε_j`, w = (1), (3, −1)/2, (23, −16, 5)/12, (55, −59, 37, −9)/24 by the order. The start is
//!
//! - from lower orders: iPNDM, one evaluation a step;
//! - a pseudo Heun step, ε̄ the mean at both ends, one evaluation more: S-PNDM at order 2, "PLMS" at order 4;
//! - pseudo Runge–Kutta steps, order − 1 of them of four evaluations each: F-PNDM at order 4.
//!
//! The weights fit steps equal in t. The order measured is 2 for every order but 1: the transfer is DDIM's, which carries a constant ε only, and the
//! weights average in t what the transfer integrates in ρ. Where ρ is linear in t (EDM) the order is that of the weights.
//!
//! Reference: Liu, Ren, Lin, Zhao 2022, arXiv 2202.09778, Eq. (9)–(13); Zhang, Chen 2022, arXiv 2204.13902, section 4 (iPNDM).

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Multistep, Table, Update, checked};
use crate::Result;
use crate::error::in_range;

/// Adams–Bashforth's weights for equal steps, newest first.
const WEIGHTS: [&[f64]; 4] = [
    &[1.0],
    &[1.5, -0.5],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// How a pseudo numerical method comes by its first predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// By lower orders.
    Lower,
    /// By a pseudo Heun step, then lower orders.
    Heun,
    /// By pseudo Runge–Kutta steps of order four.
    RungeKutta,
}

/// A pseudo numerical method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pndm {
    /// How it starts.
    pub start: Start,
    /// Predictions used, 1 … 4.
    pub order: usize,
}

/// Rows under construction; remembers how many evaluations ago each step's first one was.
struct Rows<'a> {
    sde: &'a dyn LinearSde,
    name: &'static str,
    updates: Vec<Update>,
}

impl Rows<'_> {
    /// The DDIM transfer from `from` to `to`, as a factor of ε̄.
    fn transfer(&self, from: f64, to: f64) -> Result<Op> {
        Ok(self.sde.factor(to).sub(&self.sde.transition(to, from).mul(&self.sde.factor(from))?)?)
    }

    /// A row from the point of this evaluation to that of the next. Both are transfers from `origin`: `here` and `next` are their ends and
    /// their weights on the evaluations of the step so far, the newest first.
    fn stage(&mut self, origin: f64, here: (f64, &[f64]), next: (f64, &[f64]), step: usize) -> Result<()> {
        let psi = self.sde.transition(next.0, here.0);
        let undone = psi.mul(&self.transfer(origin, here.0)?)?;
        let done = self.transfer(origin, next.0)?;
        let mut terms = Vec::with_capacity(next.1.len());
        for (j, weight) in next.1.iter().enumerate() {
            // The evaluation at hand is not among those that led here.
            let old = if j == 0 { 0.0 } else { here.1[j - 1] };
            terms.push(done.scale(*weight).sub(&undone.scale(old))?);
        }
        self.updates.push(checked(self.name, Update::new(here.0, next.0, psi, terms).of_step(step))?);
        Ok(())
    }
}

impl Pndm {
    /// Steps that are taken by the start's own rule.
    fn started(&self) -> usize {
        match self.start {
            Start::Lower => 0,
            Start::Heun => 1,
            Start::RungeKutta => self.order - 1,
        }
    }
}

impl Multistep for Pndm {
    fn name(&self) -> &'static str {
        let names = match self.start {
            Start::Lower => ["ipndm1", "ipndm2", "ipndm3", "ipndm4"],
            Start::Heun => ["s-pndm1", "s-pndm", "s-pndm3", "plms"],
            Start::RungeKutta => ["f-pndm1", "f-pndm2", "f-pndm3", "f-pndm"],
        };
        names.get(self.order.wrapping_sub(1)).copied().unwrap_or("pndm")
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        in_range("order", self.order as f64, 1.0, 4.0)?;
        sde_core::grid::require_signal(sde, grid.start(), "a pseudo numerical method")?;
        let mut rows = Rows { sde, name: self.name(), updates: Vec::new() };
        // The row in which each step makes its first evaluation.
        let mut firsts = Vec::new();
        for (step, pair) in grid.times().windows(2).enumerate() {
            let (from, to) = (pair[0], pair[1]);
            firsts.push(rows.updates.len());
            if step < self.started() {
                match self.start {
                    Start::RungeKutta => runge_kutta(&mut rows, from, to, step)?,
                    _ => {
                        rows.stage(from, (from, &[]), (to, &[1.0]), step)?;
                        rows.stage(from, (to, &[1.0]), (to, &[0.5, 0.5]), step)?;
                    }
                }
                continue;
            }
            let used = self.order.min(step + 1);
            let row = rows.updates.len();
            let mut weights = vec![0.0; row - firsts[step + 1 - used] + 1];
            for (lag, weight) in WEIGHTS[used - 1].iter().enumerate() {
                weights[row - firsts[step - lag]] = *weight;
            }
            let zeros = vec![0.0; weights.len() - 1];
            rows.stage(from, (from, &zeros), (to, &weights), step)?;
        }
        Ok(Table { of: Prediction::Noise, updates: rows.updates })
    }
}

/// The pseudo Runge–Kutta step: twice to the middle, once to the end, then the mean with Simpson's weights.
fn runge_kutta(rows: &mut Rows<'_>, from: f64, to: f64, step: usize) -> Result<()> {
    let middle = 0.5 * (from + to);
    rows.stage(from, (from, &[]), (middle, &[1.0]), step)?;
    rows.stage(from, (middle, &[1.0]), (middle, &[1.0, 0.0]), step)?;
    rows.stage(from, (middle, &[1.0, 0.0]), (to, &[1.0, 0.0, 0.0]), step)?;
    let sixth = 1.0 / 6.0;
    rows.stage(from, (to, &[1.0, 0.0, 0.0]), (to, &[sixth, 2.0 * sixth, 2.0 * sixth, sixth]), step)
}
