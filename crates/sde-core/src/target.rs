//! A law that is known up to its normaliser: what a sampler without data is given.
//!
//! ```text
//! μ̂(x) = Z μ(x)        log μ̂(x)        ∇ log μ̂(x) = ∇ log μ(x)
//! ```
//!
//! Density and score are asked for together, for a batch, in f64: they share most of their work. A [`Target`] is one `impl`, or a closure over one
//! point ([`TargetFn`]). Where log Z is known the target says so, and that is what an estimate is compared with.
//!
//! Reference: Zhang 2023 (thesis), section 5.1 and Table 5.1, for the targets in this module.

mod bridge;
mod control;
mod cox;
mod funnel;
mod gaussian;
mod mixture;
mod rings;
mod sampler;
mod weights;

pub use bridge::Bridge;
pub use control::{Control, ControlFn, FollmerDrift};
pub use cox::{Cox, CoxGrid};
pub use funnel::Funnel;
pub use gaussian::gaussian;
pub use mixture::MixtureTarget;
pub use rings::Rings;
pub use sampler::{Drawn, TargetSampler};
pub use weights::{LogMean, LogWeights};

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::error::in_range;
use crate::noise::host_tensor;
use crate::{Error, Result};

/// log μ̂ and its gradient at the points of a batch.
#[derive(Debug, Clone)]
pub struct LogDensity {
    /// log μ̂, `[B]`.
    pub value: Tensor,
    /// ∇ log μ̂, `[B, D]`.
    pub score: Tensor,
}

/// An unnormalised law on `R^D`.
pub trait Target: Send + Sync {
    /// What it is called in tables and records.
    fn name(&self) -> &str;

    /// D.
    fn dim(&self) -> usize;

    /// log Z, where it is known.
    fn log_normaliser(&self) -> Option<f64>;

    /// log μ̂ and ∇ log μ̂. A point outside the support has the density −∞; what its score is does not matter.
    ///
    /// # Shapes
    /// `x` `[B, D]`, f64; the density is `[B]`, the score `[B, D]`, both f64 on the device of `x`.
    ///
    /// # Errors
    /// When `x` has another shape, or the computation fails.
    fn log_density(&self, x: &Tensor) -> Result<LogDensity>;

    /// [`Target::log_density`], refused where density or score are not finite: what a method calls that cannot reject a point.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first such sample, beside those of [`Target::log_density`].
    fn finite_log_density(&self, x: &Tensor) -> Result<LogDensity> {
        let density = self.log_density(x)?;
        let finite = |what: &str, tensor: &Tensor| {
            let values = tensor.flatten_all()?.to_vec1::<f64>()?;
            let each = values.len() / x.dim(0)?.max(1);
            match values.iter().position(|value| !value.is_finite()) {
                None => Ok(()),
                Some(at) => Err(Error::NonFinite {
                    what: format!(
                        "{what} of the target {} at sample {} (start where it has mass, or bound the steps)",
                        self.name(),
                        at / each.max(1)
                    ),
                    found: values[at],
                }),
            }
        };
        finite("the log density", &density.value)?;
        finite("the score", &density.score)?;
        Ok(density)
    }
}

impl<T: Target + ?Sized> Target for &T {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn dim(&self) -> usize {
        (**self).dim()
    }
    fn log_normaliser(&self) -> Option<f64> {
        (**self).log_normaliser()
    }
    fn log_density(&self, x: &Tensor) -> Result<LogDensity> {
        (**self).log_density(x)
    }
}

impl<T: Target + ?Sized> Target for Box<T> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn dim(&self) -> usize {
        (**self).dim()
    }
    fn log_normaliser(&self) -> Option<f64> {
        (**self).log_normaliser()
    }
    fn log_density(&self, x: &Tensor) -> Result<LogDensity> {
        (**self).log_density(x)
    }
}

/// A closure over one point as a target: it writes the score and returns log μ̂.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use sde_core::{Target, TargetFn};
///
/// # fn main() -> sde_core::Result<()> {
/// let quartic = TargetFn::new("quartic", 1, None, |x: &[f64], score: &mut [f64]| {
///     score[0] = -4.0 * x[0].powi(3);
///     -x[0].powi(4)
/// });
/// let density = quartic.log_density(&Tensor::new(&[[2.0]], &Device::Cpu)?)?;
/// assert_eq!(density.value.to_vec1::<f64>()?, [-16.0]);
/// # Ok(())
/// # }
/// ```
pub struct TargetFn<F> {
    name: String,
    dim: usize,
    log_normaliser: Option<f64>,
    density: F,
}

impl<F: Fn(&[f64], &mut [f64]) -> f64 + Send + Sync> TargetFn<F> {
    /// The target in `dim` dimensions of `density`, which is given x and a place for the score.
    pub fn new(name: impl Into<String>, dim: usize, log_normaliser: Option<f64>, density: F) -> Self {
        Self { name: name.into(), dim, log_normaliser, density }
    }
}

impl<F: Fn(&[f64], &mut [f64]) -> f64 + Send + Sync> Target for TargetFn<F> {
    fn name(&self) -> &str {
        &self.name
    }
    fn dim(&self) -> usize {
        self.dim
    }
    fn log_normaliser(&self) -> Option<f64> {
        self.log_normaliser
    }
    fn log_density(&self, x: &Tensor) -> Result<LogDensity> {
        by_rows(x, self.dim, &self.density)
    }
}

/// Density and score of each row of `x` on the host, in parallel: `density` writes the score and returns log μ̂.
///
/// # Errors
/// When `x` is not `[B, dim]` in f64, or `dim` is 0.
pub fn by_rows(
    x: &Tensor,
    dim: usize,
    density: impl Fn(&[f64], &mut [f64]) -> f64 + Sync,
) -> Result<LogDensity> {
    let points = host_points(x, dim)?;
    let (mut values, mut scores) = (vec![0.0; points.len() / dim.max(1)], vec![0.0; points.len()]);
    let rows = points.par_chunks(dim).zip(scores.par_chunks_mut(dim)).zip(values.par_iter_mut());
    // Cheap rows are not worth a task each.
    rows.with_min_len(64).for_each(|((x, score), value)| *value = density(x, score));
    Ok(LogDensity {
        value: host_tensor(values, &[x.dim(0)?], DType::F64, x.device())?,
        score: host_tensor(scores, x.dims(), DType::F64, x.device())?,
    })
}

/// The entries of a batch of points, checked.
fn host_points(x: &Tensor, dim: usize) -> Result<Vec<f64>> {
    in_range("dimensions of a target", dim as f64, 1.0, 1e9)?;
    if x.rank() != 2 || x.dim(1)? != dim || x.dtype() != DType::F64 {
        return Err(Error::Mismatch {
            what: "points given to a target",
            expected: format!("[B, {dim}] in f64"),
            found: format!("{:?} in {:?}", x.dims(), x.dtype()),
        });
    }
    Ok(x.flatten_all()?.to_vec1::<f64>()?)
}
