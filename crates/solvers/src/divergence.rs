//! The divergence of a field, `∇·f = tr ∂f/∂x`: exact, or the unbiased Hutchinson estimate `E vᵀ (∂f/∂x) v`.
//!
//! Exact costs one evaluation and D vector–Jacobian products, Hutchinson one evaluation and K. Rademacher probes have the smaller
//! variance for every Jacobian.
//!
//! Reference: Hutchinson 1990; Grathwohl et al. 2018, arXiv 1810.01367, section 3 (probes fixed during a solve).

use candle_core::Tensor;
use sde_core::Field;
use sde_core::noise::{BatchNoise, Law, Stream};

use crate::{Error, Result};

/// How a divergence is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Divergence {
    /// The trace itself.
    Exact,
    /// The mean over random probes.
    Hutchinson {
        /// The law of a probe's entries: `Rademacher` or `Normal`.
        law: Law,
        /// K.
        probes: usize,
    },
}

impl Divergence {
    /// The probes for a whole solve: unit vectors, or random ones addressed by sample, the site of `noise` being the probe's number.
    ///
    /// # Shapes
    /// Each has the shape of `like`, `[B, …]`.
    ///
    /// # Errors
    /// A range error for no probes, or uniform ones (which are not centred).
    pub fn probes(&self, noise: &BatchNoise, like: &Tensor) -> Result<Vec<Tensor>> {
        match *self {
            Self::Exact => unit_vectors(like),
            Self::Hutchinson { law: Law::Uniform, .. } => {
                Err(range("variance of the probes' law", 1.0 / 12.0, 1.0, 1.0))
            }
            Self::Hutchinson { probes: 0, .. } => Err(range("number of probes", 0.0, 1.0, f64::MAX)),
            Self::Hutchinson { law, probes } => (0..probes)
                .map(|k| {
                    let (dims, dtype, device) = (&like.dims()[1..], like.dtype(), like.device());
                    Ok(noise.tensor(law, Stream::Probe, k as u32, dims, dtype, device)?)
                })
                .collect(),
        }
    }

    /// The field's value and its divergence, with `probes` as made by [`Divergence::probes`].
    ///
    /// # Shapes
    /// `x` `[B, …]`; the divergence is `[B]`.
    ///
    /// # Errors
    /// As [`Field::vjps`].
    pub fn value_and_divergence(
        &self,
        field: &dyn Field,
        x: &Tensor,
        t: &[f64],
        probes: &[Tensor],
    ) -> sde_core::Result<(Tensor, Tensor)> {
        let (value, products) = field.vjps(x, t, probes)?;
        let mut trace = Tensor::zeros(x.dim(0)?, x.dtype(), x.device())?;
        for (probe, product) in probes.iter().zip(&products) {
            trace = (trace + (probe * product)?.flatten_from(1)?.sum(1)?)?;
        }
        let divergence = match self {
            Self::Exact => trace,
            Self::Hutchinson { .. } => (trace / probes.len().max(1) as f64)?,
        };
        Ok((value, divergence))
    }
}

fn range(what: &'static str, found: f64, low: f64, high: f64) -> Error {
    sde_core::Error::Range { what, found, low, high }.into()
}

fn unit_vectors(like: &Tensor) -> Result<Vec<Tensor>> {
    let dim: usize = like.dims()[1..].iter().product();
    let identity = Tensor::eye(dim, like.dtype(), like.device())?;
    (0..dim)
        .map(|i| {
            let unit = identity.get(i)?.reshape(&like.dims()[1..])?.unsqueeze(0)?;
            Ok(unit.broadcast_as(like.dims())?.contiguous()?)
        })
        .collect()
}
