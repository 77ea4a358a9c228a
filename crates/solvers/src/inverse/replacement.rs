//! Inverse problems by replacement: after every step of a table the measured part of the state becomes the measurement, noised to the
//! time of the state, `A u ← S y + R A z`; after the last, the measurement itself, exactly.
//!
//! The network sees a state that agrees with the measurement, but was not drawn given it: the rest follows the known part too weakly. That is the
//! method's error, not the sampler's; [`Reconstruction`](super::Reconstruction) has the derivative that it lacks, and
//! [`Resampled`](super::Resampled) tables come back to it.
//!
//! Any table serves. Fresh noise is drawn at the steps that follow those of the table, so it does not repeat the sampler's.
//!
//! Reference: Song et al. 2021, arXiv 2011.13456, appendix I.2; Lugmayr et al. 2022, arXiv 2201.09865, Eq. (8).

use candle_core::Tensor;
use sde_core::noise::NormalSource;

use super::Measurement;
use crate::Result;
use crate::sampler::{Path, Sampler, Solution};
use crate::table::{Multistep, alpha_sigma};

/// A rule of tables that keeps to a measurement.
pub struct Replacement<M, A> {
    rule: M,
    measurement: A,
    y: Tensor,
}

impl<M: Multistep, A: Measurement> Replacement<M, A> {
    /// `rule`, kept to the measurement `y`.
    ///
    /// # Shapes
    /// `y` as `measurement` makes it, `[B, …]`, or `[1, …]` for all samples.
    pub fn new(rule: M, measurement: A, y: Tensor) -> Self {
        Self { rule, measurement, y }
    }
}

impl<M: Multistep, A: Measurement> Sampler for Replacement<M, A> {
    /// # Errors
    /// Besides those of the table, [`crate::Error::NotScalar`] for a process with groups.
    fn sample(&self, path: &Path<'_>, x: &Tensor, noise: &dyn NormalSource) -> Result<Solution> {
        let table = self.rule.table(path.sde, path.grid)?;
        let last = table.updates.iter().map(|update| update.step).max().unwrap_or(0);
        let y = self.y.to_dtype(x.dtype())?.to_device(x.device())?;
        table.sample_with(path.sde, path.field, x, noise, &mut |update, x| {
            if update.step == last {
                return Ok(self.measurement.project(&x, &y)?);
            }
            let (alpha, sigma) = alpha_sigma("replacement", path.sde, update.to)?;
            let drawn = self.measurement.apply(&noise.normal(last + 1 + update.step, &x)?)?;
            let noised = (drawn * sigma)?.broadcast_add(&(&y * alpha)?)?;
            Ok(self.measurement.project(&x, &noised)?)
        })
    }
}
