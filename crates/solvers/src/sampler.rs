//! What every sampler is to its user: a start, a path from noise to data, an end.

use candle_core::Tensor;
use sde_core::noise::NormalSource;
use sde_core::{Field, LinearSde, TimeGrid};

use crate::Result;

/// The way a sampler goes.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    /// The process.
    pub sde: &'a dyn LinearSde,
    /// A field of the process, of any prediction.
    pub field: &'a dyn Field,
    /// The times of a fixed grid; of an adaptive solver, its ends.
    pub grid: &'a TimeGrid,
}

/// What a sampler returns.
#[derive(Debug, Clone)]
pub struct Solution {
    /// The final state, of the shape and type of the initial one.
    pub x: Tensor,
    /// Evaluations of the field for each sample.
    pub nfe: Vec<usize>,
}

/// A sampler of any kind.
pub trait Sampler {
    /// Carries `x` from the start of the grid to its end. `noise` is asked by the number of a step.
    ///
    /// # Shapes
    /// `x` `[B, …]`, in f64 where the device has it.
    ///
    /// # Errors
    /// When the sampler does not exist for the process or on the grid, when a state is not finite, and whatever the field returns.
    fn sample(&self, path: &Path<'_>, x: &Tensor, noise: &dyn NormalSource) -> Result<Solution>;
}
