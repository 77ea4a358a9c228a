//! Euler's rule on the probability flow in t: `u' = u + (t' − t) v`, v the velocity `F u + ½ G Gᵀ R⁻ᵀ ε`.
//!
//! Reference: Song et al. 2021, arXiv 2011.13456, Eq. (13), discretised; for flow matching it is the usual sampler.

use sde_core::{LinearSde, Op, Prediction, TimeGrid};

use super::{Multistep, Table, Update};
use crate::Result;

/// Euler in t.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Euler;

impl Multistep for Euler {
    fn name(&self) -> &'static str {
        "euler"
    }

    fn table(&self, _: &dyn LinearSde, grid: &TimeGrid) -> Result<Table> {
        Table::of_steps(self.name(), Prediction::Velocity, grid, |from, to| {
            Ok(Update::new(from, to, Op::IDENTITY, vec![Op::Scalar(to - from)]))
        })
    }
}
