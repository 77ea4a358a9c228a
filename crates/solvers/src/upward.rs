//! The table of a deterministic rule run the other way, from data to noise: what a likelihood or an encoding on a fixed grid needs.
//!
//! A rule is made for a grid that falls. Seen in `τ = t₀ + T − t` the probability flow is that of a process whose operators are the
//! same functions of t, with the opposite rates: `F → −F`, `G Gᵀ → −G Gᵀ`, so that `v → −v`, while ε, x₀ and the score keep their
//! meaning. The rule's table for that process on the mirrored grid is its table upwards; its order of convergence is the same.
//!
//! Reference: Song, Meng, Ermon 2021, arXiv 2010.02502, section 4.3, for the first order; Zhang 2023 (thesis), section 3.4.
//! Differs: any rule. A multistep one begins with its lower orders at the data, where the grids that suit it have their shortest steps.

use sde_core::process::Auxiliary;
use sde_core::{LinearSde, Op, Prediction, Span, TimeGrid};

use crate::table::{Multistep, Table};
use crate::{Error, Result};

/// The table of `rule` that carries states from the end of `grid`, near the data, to its start.
///
/// # Errors
/// As [`Multistep::table`], and [`Error::Upward`] for a rule that draws noise.
pub fn upward(rule: &dyn Multistep, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
    // On the way down: upwards the variances of such rules would be negative, or cut off at zero without a word.
    if rule.table(sde, grid)?.updates.iter().any(|update| update.inject.is_some()) {
        return Err(Error::Upward { sampler: rule.name() });
    }
    let turned = Turned::new(sde, grid);
    let mirrored = TimeGrid::new(turned.places.iter().map(|place| place.0).collect())?;
    let mut table = rule.table(&turned, &mirrored)?;
    for update in &mut table.updates {
        (update.from, update.to) = (turned.time(update.from), turned.time(update.to));
        if table.of == Prediction::Velocity {
            update.terms.iter_mut().for_each(|term| *term = term.scale(-1.0));
        }
    }
    Ok(table)
}

/// A process seen with time running the other way between two times.
struct Turned<'a> {
    sde: &'a dyn LinearSde,
    /// The lowest and the highest t.
    ends: [f64; 2],
    /// (τ, t) of the grid, so that its times come back to the last bit; τ falls.
    places: Vec<(f64, f64)>,
    knots: Vec<f64>,
}

impl<'a> Turned<'a> {
    fn new(sde: &'a dyn LinearSde, grid: &TimeGrid) -> Self {
        let ends = [grid.stop(), grid.start()];
        let turn = |t: f64| ends[0] + ends[1] - t;
        let places = grid.times().iter().rev().map(|&t| (turn(t), t)).collect();
        let inside = sde.knots().iter().rev().filter(|t| (ends[0]..=ends[1]).contains(*t));
        Self { sde, ends, places, knots: inside.map(|&t| turn(t)).collect() }
    }

    /// t of τ.
    fn time(&self, tau: f64) -> f64 {
        match self.places.binary_search_by(|place| tau.total_cmp(&place.0)) {
            Ok(at) => self.places[at].1,
            Err(_) => (self.ends[0] + self.ends[1] - tau).clamp(self.ends[0], self.ends[1]),
        }
    }
}

impl LinearSde for Turned<'_> {
    fn span(&self) -> Span {
        Span { end: self.ends[1], sampling: self.ends[0], likelihood: self.ends[0] }
    }
    fn drift(&self, tau: f64) -> Op {
        self.sde.drift(self.time(tau)).scale(-1.0)
    }
    fn diffusion(&self, tau: f64) -> Op {
        self.sde.diffusion(self.time(tau)).scale(-1.0)
    }
    fn transition(&self, to: f64, from: f64) -> Op {
        self.sde.transition(self.time(to), self.time(from))
    }
    fn signal(&self, tau: f64) -> Op {
        self.sde.signal(self.time(tau))
    }
    fn signal_rate(&self, tau: f64) -> Op {
        self.sde.signal_rate(self.time(tau)).scale(-1.0)
    }
    fn covariance(&self, tau: f64) -> Op {
        self.sde.covariance(self.time(tau))
    }
    fn factor(&self, tau: f64) -> Op {
        self.sde.factor(self.time(tau))
    }
    fn factor_rate(&self, tau: f64) -> Op {
        self.sde.factor_rate(self.time(tau)).scale(-1.0)
    }
    fn prior(&self) -> Op {
        self.sde.prior()
    }
    fn groups(&self) -> usize {
        self.sde.groups()
    }
    fn auxiliary(&self) -> Option<Auxiliary> {
        self.sde.auxiliary()
    }
    fn clock(&self, tau: f64) -> f64 {
        self.sde.clock(self.time(tau))
    }
    fn time_of_clock(&self, clock: f64) -> f64 {
        self.ends[0] + self.ends[1] - self.sde.time_of_clock(clock)
    }
    fn clock_rate(&self, tau: f64) -> f64 {
        -self.sde.clock_rate(self.time(tau))
    }
    fn knots(&self) -> &[f64] {
        &self.knots
    }
}
