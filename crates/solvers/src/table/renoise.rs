//! Noising again: the expected data with all noise fresh, `u' = S' x₀ + R' z`, for any linear process.
//!
//! It is DDIM's family at its most stochastic. Exact where x₀ is drawn from its posterior; with the posterior's mean it loses variance.
//!
//! Reference: Song, Meng, Ermon 2020, arXiv 2010.02502, Eq. (7) with σ_t² = 1 − α_{t−1}; the multistep sampler of consistency models is the same.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Multistep, Table, Update};
use crate::Result;

/// The sampler whose every step forgets its noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renoise;

impl Multistep for Renoise {
    fn name(&self) -> &'static str {
        "renoise"
    }

    fn table(&self, sde: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        Table::of_steps(self.name(), Prediction::Data, grid, |from, to| {
            Ok(Update::new(from, to, Op::ZERO, vec![sde.signal(to)]).with_noise(sde.factor(to)))
        })
    }
}
