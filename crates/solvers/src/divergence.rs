//! The divergence of a field, `∇·f = tr ∂f/∂x`: exact, or the unbiased Hutchinson estimate `E vᵀ (∂f/∂x) v`.
//!
//! Exact costs one evaluation and D vector–Jacobian products, Hutchinson one evaluation and K. With S the symmetric part of the Jacobian
//! and `V = 2 Σ_{i≠j} S_ij²`, the variance of K probes is
//!
//! ```text
//! rademacher   V / K
//! normal       2 ‖S‖² / K
//! antithetic   V / K · (D − K)/(D − 1)                         K a power of two that divides D
//! orthogonal   2 (D ‖S‖² − tr² S)/(D + 2) / K · (D − K)/(D − 1)    K ≤ D
//! ```
//!
//! so that antithetic probes are no worse than Rademacher ones, nor orthogonal than normal ones, whatever the Jacobian; with K = D both are exact.
//! v and −v say the same of a quadratic form; antithetic are Rademacher probes whose signs are flipped on parts of the entries, as in the rows of a
//! Hadamard matrix, `v_k = h_k ⊙ v`: the mean over K of them keeps entry (i, j) of the Jacobian only where i and j are in one of K parts, and
//! which those are is drawn afresh for each sample.
//!
//! Reference: Hutchinson 1990; Grathwohl et al. 2018, arXiv 1810.01367, section 3 (probes fixed during a solve); Bekas, Kokiopoulou, Saad
//! 2007, doi 10.1016/j.apnum.2007.01.003 (Hadamard probes); Yu et al. 2016, arXiv 1610.09072 (orthogonal ones).
//! Differs: the parts of antithetic probes are random, which makes them no worse for any Jacobian.

use candle_core::Tensor;
use rayon::prelude::*;
use sde_core::Field;
use sde_core::noise::{BatchNoise, Draws, Law, Stream, host_tensor};

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
    /// The mean over Rademacher probes in groups with flipped signs.
    Antithetic {
        /// K, even; a group has as many as the largest power of two in K.
        probes: usize,
    },
    /// The mean over probes that are orthogonal to each other, uniform on the sphere of radius √D.
    Orthogonal {
        /// K; beyond D they are orthogonal among the first D, the next D, ….
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
    /// A range error for no probes, uniform ones (which are not centred), or an odd number of antithetic ones.
    pub fn probes(&self, noise: &BatchNoise, like: &Tensor) -> Result<Vec<Tensor>> {
        match *self {
            Self::Exact => unit_vectors(like),
            Self::Hutchinson { law: Law::Uniform, .. } => {
                Err(range("variance of the probes' law", 1.0 / 12.0, 1.0, 1.0))
            }
            Self::Hutchinson { probes: 0, .. }
            | Self::Antithetic { probes: 0 }
            | Self::Orthogonal { probes: 0 } => Err(range("number of probes", 0.0, 1.0, f64::MAX)),
            Self::Antithetic { probes } if probes % 2 == 1 => {
                Err(range("number of antithetic probes, which is even,", probes as f64, 2.0, f64::MAX))
            }
            Self::Antithetic { probes } => {
                let group = 1 << probes.trailing_zeros();
                in_groups(noise, like, probes, group, flipped)
            }
            Self::Orthogonal { probes } => {
                let dim = like.dims()[1..].iter().product::<usize>().max(1);
                in_groups(noise, like, probes, dim.min(probes), orthogonal)
            }
            Self::Hutchinson { law, probes } => (0..probes)
                .map(|k| {
                    let (dims, dtype, device) = (&like.dims()[1..], like.dtype(), like.device());
                    Ok(noise.tensor(law, Stream::Probe, k as u32, dims, dtype, device)?)
                })
                .collect(),
        }
    }

    /// Vector–Jacobian products that one evaluation costs, for samples of `dim` entries.
    pub fn products(&self, dim: usize) -> usize {
        match *self {
            Self::Exact => dim,
            Self::Hutchinson { probes, .. } | Self::Antithetic { probes } | Self::Orthogonal { probes } => {
                probes
            }
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
            _ => (trace / probes.len().max(1) as f64)?,
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

/// Probes made `group` at a time for each sample; the group that starts at probe k draws at site k.
fn in_groups(
    noise: &BatchNoise,
    like: &Tensor,
    probes: usize,
    group: usize,
    make: impl Fn(&mut Draws, usize, usize) -> Vec<Vec<f64>> + Sync,
) -> Result<Vec<Tensor>> {
    let dim = like.dims()[1..].iter().product();
    let mut all = Vec::with_capacity(probes);
    for first in (0..probes).step_by(group) {
        let size = group.min(probes - first);
        let of_sample = |&sample: &u32| {
            make(&mut noise.noise.draws_at(Stream::Probe, first as u32, noise.step, sample), dim, size)
        };
        let samples: Vec<Vec<Vec<f64>>> = noise.samples.par_iter().map(of_sample).collect();
        for k in 0..size {
            let values = samples.iter().flat_map(|vectors| vectors[k].iter().copied()).collect();
            all.push(host_tensor(values, like.dims(), like.dtype(), like.device())?);
        }
    }
    Ok(all)
}

/// `size` (a power of two) sign vectors: v_k is v with the signs of part p flipped where k and p have an odd number of ones in common, a
/// Hadamard matrix's entry (k, p).
fn flipped(draws: &mut Draws, dim: usize, size: usize) -> Vec<Vec<f64>> {
    let signs: Vec<f64> = (0..dim).map(|_| draws.sign()).collect();
    let mut part = vec![0; dim];
    draws.permutation(dim).iter().enumerate().for_each(|(rank, &at)| part[at] = rank % size);
    let sign =
        |k: usize, i: usize| if (k & part[i]).count_ones().is_multiple_of(2) { signs[i] } else { -signs[i] };
    (0..size).map(|k| (0..dim).map(|i| sign(k, i)).collect()).collect()
}

/// `size` (at most `dim`) orthogonal vectors of length √D, Haar-distributed: normal ones orthogonalised in turn, twice for the sake of rounding.
fn orthogonal(draws: &mut Draws, dim: usize, size: usize) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let radius = (dim as f64).sqrt();
    let mut found: Vec<Vec<f64>> = Vec::with_capacity(size);
    for _ in 0..size {
        let mut v: Vec<f64> = (0..dim).map(|_| draws.normal()).collect();
        for other in found.iter().chain(&found) {
            let along = dot(&v, other) / dim as f64;
            v.iter_mut().zip(other).for_each(|(v, o)| *v -= along * o);
        }
        let scale = radius / dot(&v, &v).sqrt();
        v.iter_mut().for_each(|v| *v *= scale);
        found.push(v);
    }
    found
}
