//! Fréchet distance between the normal laws with the moments of two sets of features (FID; sFID where the features are spatial):
//!
//! `d² = |m₁ − m₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁^½ Σ₂ Σ₁^½)^½`.
//!
//! With any factors `Σ = A Aᵀ` the last trace is the nuclear norm of `A₁ᵀ A₂`. So nothing is ever the root of a rounded zero: where
//! Σ₁ Σ₂ is singular, the eigenvalues of `Σ₁^½ Σ₂ Σ₁^½` that should vanish are of the size of rounding, ε, and their roots, √ε,
//! are what other programs add or lose. Factors come from the samples themselves if there are at most D of them, else from the
//! eigenvectors of Σ; eigenvalues below D ε of the largest, and more than n − 1, are rounding and left out. Nothing is complex.
//!
//! From n samples the distance reads too high by about b/n, and from n ≤ D the covariance is singular by construction: that is
//! refused unless allowed. The error bar is that of disjoint groups of samples, `s/√G`: the spread s of the distances of G groups of
//! n/G, each to the same reference, whose own sampling error is not in it; or that of the bootstrap.
//! It has G − 1 degrees of freedom, and where the laws are nearly equal, so that a distance is all bias, it is too large, by up to √G.
//!
//! Reference: Fréchet 1957; Dowson, Landau 1982, doi 10.1016/0047-259X(82)90077-X; Heusel et al. 2017, arXiv 1706.08500, Eq. (6);
//! Efron 1979, doi 10.1214/aos/1176344552.
//! Differs: the trace as a nuclear norm.

use faer::Mat;
use rayon::prelude::*;
use sde_core::noise::{Noise, Stream};
use serde::Serialize;

use crate::estimate::variance;
use crate::{Error, Estimate, FeatureSet, FeatureSpace, GroupedMoments, Moments, Result, Statistics, matrix};

/// How far, against the largest, an eigenvalue of a covariance read may be below zero.
const INDEFINITE: f64 = 1e-5;
/// The site of the draws of a bootstrap.
const BOOTSTRAP_SITE: u32 = 2;

/// What is compared although the number may mislead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allow {
    /// Not more samples than features have entries.
    pub small: bool,
    /// Statistics that do not say what they are of.
    pub unknown_space: bool,
}

impl Allow {
    /// Neither.
    pub const NOTHING: Self = Self { small: false, unknown_space: false };
}

/// The normal law with the moments of features, ready to be compared.
#[derive(Debug, Clone)]
pub struct FeatureGaussian {
    space: Option<FeatureSpace>,
    n: Option<usize>,
    mean: Vec<f64>,
    /// `Σ = A Aᵀ`, `[D, r]`.
    factor: Mat<f64>,
    /// `tr Σ`.
    trace: f64,
}

impl FeatureGaussian {
    /// Of statistics.
    ///
    /// # Errors
    /// When the eigenvalues of the covariance do not converge.
    pub fn new(statistics: &Statistics) -> Result<Self> {
        let about = statistics.about();
        let n = about.and_then(|about| about.n);
        let space = about.map(|about| about.space.clone());
        Self::of_moments(space, n, statistics.mean().to_vec(), statistics.matrix())
    }

    /// Of kept features; more accurate than their moments where there are at most D.
    ///
    /// # Errors
    /// As [`new`](Self::new), and for fewer than two features.
    pub fn of_features(features: &FeatureSet) -> Result<Self> {
        let (n, d) = (features.len(), features.dim());
        let space = Some(features.space().clone());
        if n > d {
            let mut moments = Moments::new(d);
            for rows in matrix::pieces(n, 256) {
                let block = features.block(rows);
                block.col_iter().for_each(|row| moments.push_row(&row.iter().copied().collect::<Vec<_>>()));
            }
            let (mean, covariance) = moments.mean_and_covariance()?;
            return Self::of_moments(space, Some(n), mean, &covariance);
        }
        if n < 2 {
            return Err(Error::mismatch("features behind a covariance", "at least 2", n));
        }
        // D × D numbers are never needed here.
        let (block, root) = (features.block(0..n), ((n - 1) as f64).sqrt());
        let mean: Vec<f64> = block.row_iter().map(|row| row.iter().sum::<f64>() / n as f64).collect();
        let factor = Mat::from_fn(d, n, |i, k| (block[(i, k)] - mean[i]) / root);
        let trace = factor.col_iter().flat_map(|column| column.iter()).map(|v| v * v).sum();
        Ok(Self { space, n: Some(n), mean, factor, trace })
    }

    fn of_moments(
        space: Option<FeatureSpace>,
        n: Option<usize>,
        mean: Vec<f64>,
        covariance: &Mat<f64>,
    ) -> Result<Self> {
        let d = mean.len();
        let (values, vectors) = matrix::eigen(covariance.as_ref())?;
        let largest = values.last().copied().unwrap_or(0.0);
        let rounding = d as f64 * f64::EPSILON * largest;
        // Files may hold f32; what is further below zero is no covariance.
        if let Some(least) = values.first().filter(|least| **least < -INDEFINITE * largest) {
            let found = format!("an eigenvalue {least:e} beside {largest:e}");
            return Err(Error::mismatch(
                "covariance of features",
                "no direction of negative variance",
                found,
            ));
        }
        let rank = n.map_or(d, |n| d.min(n.saturating_sub(1)));
        let kept: Vec<usize> = (d - rank..d).filter(|&k| values[k] > rounding && values[k] > 0.0).collect();
        let factor = Mat::from_fn(d, kept.len(), |i, k| vectors[(i, kept[k])] * values[kept[k]].sqrt());
        Ok(Self { space, n, mean, factor, trace: trace(covariance) })
    }

    /// The number of samples behind it, where it is known.
    pub fn n(&self) -> Option<usize> {
        self.n
    }

    /// The number of directions in which it varies.
    pub fn rank(&self) -> usize {
        self.factor.ncols()
    }

    fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The squared distance to another, without asking whether it makes sense.
    fn distance(&self, other: &Self) -> Result<f64> {
        let means: f64 = self.mean.iter().zip(&other.mean).map(|(a, b)| (a - b).powi(2)).sum();
        let product = matrix::product(self.factor.as_ref(), other.factor.as_ref());
        Ok(means + (self.trace + other.trace - 2.0 * matrix::nuclear_norm(product.as_ref())?))
    }

    pub(crate) fn check(&self, other: &Self, allow: Allow) -> Result<()> {
        other.check_against(self.space.as_ref(), self.n, self.dim(), allow)
    }

    /// Refuses features of a space, a number and a length that cannot be compared with this law.
    fn check_against(
        &self,
        space: Option<&FeatureSpace>,
        n: Option<usize>,
        dim: usize,
        allow: Allow,
    ) -> Result<()> {
        match (space, &self.space) {
            (Some(a), Some(b)) => a.check_same(b)?,
            _ if allow.unknown_space => {}
            _ => {
                let expected =
                    "statistics that say what they are of (describe them, or allow an unknown space)";
                return Err(Error::mismatch("feature space", expected, "unknown"));
            }
        }
        if dim != self.dim() {
            let expected = format!("{dim} entries each, as in the first");
            return Err(Error::mismatch("features of the second", expected, self.dim()));
        }
        match [n, self.n].into_iter().flatten().min() {
            Some(n) if n <= dim && !allow.small => Err(Error::FewSamples { n, dim }),
            _ => Ok(()),
        }
    }
}

fn trace(covariance: &Mat<f64>) -> f64 {
    (0..covariance.nrows()).map(|i| covariance[(i, i)]).sum()
}

/// The squared Fréchet distance of two laws; of samples it has no error bar ([`fid`] has).
///
/// # Errors
/// For features of two spaces or of one that is unknown, and for too few samples, unless allowed.
pub fn frechet_distance(a: &FeatureGaussian, b: &FeatureGaussian, allow: Allow) -> Result<f64> {
    a.check(b, allow)?;
    a.distance(b)
}

/// FID and what its error bar comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fid {
    /// Of all samples, with the standard error by groups; unknown for a single group.
    pub estimate: Estimate,
    /// Of each group by itself: too high, by the bias of its smaller size.
    pub groups: Vec<f64>,
}

/// FID of samples that streamed by, dealt into groups, to a reference that counts as exact.
///
/// # Errors
/// As [`frechet_distance`], for all samples together; each group needs two samples.
pub fn fid(
    samples: &GroupedMoments,
    space: &FeatureSpace,
    reference: &FeatureGaussian,
    allow: Allow,
) -> Result<Fid> {
    let total = samples.total()?;
    let n = total.len();
    let gaussian = |moments: &Moments| {
        let (mean, covariance) = moments.mean_and_covariance()?;
        FeatureGaussian::of_moments(Some(space.clone()), Some(moments.len()), mean, &covariance)
    };
    let groups = samples.groups();
    let several = if groups.len() > 1 { groups } else { &[] };
    let laws: Vec<&Moments> = std::iter::once(&total).chain(several).collect();
    // Refused before the work, not behind it.
    reference.check_against(Some(space), Some(n), total.dim(), allow)?;
    let distances: Vec<f64> =
        laws.into_par_iter().map(|moments| gaussian(moments)?.distance(reference)).collect::<Result<_>>()?;
    let groups = distances[1..].to_vec();
    let standard_error = variance(&groups).map(|v| (v / groups.len() as f64).sqrt());
    Ok(Fid { estimate: Estimate { value: distances[0], standard_error, n }, groups })
}

/// FID of kept features, with the standard deviation of `replicates` bootstrap samples as its error bar.
///
/// # Errors
/// As [`frechet_distance`], and for fewer than two replicates.
pub fn fid_bootstrap(
    samples: &FeatureSet,
    reference: &FeatureGaussian,
    replicates: usize,
    noise: Noise,
    allow: Allow,
) -> Result<Estimate> {
    if replicates < 2 {
        return Err(Error::mismatch("replicates of a bootstrap", "at least 2", replicates));
    }
    let n = samples.len();
    let value = frechet_distance(&FeatureGaussian::of_features(samples)?, reference, allow)?;
    let again = |replicate: usize| {
        let mut draws = noise.draws_at(Stream::Metric, BOOTSTRAP_SITE, replicate as u32, 0);
        let chosen: Vec<usize> = (0..n).map(|_| draws.below(n as u64) as usize).collect();
        FeatureGaussian::of_features(&samples.select(&chosen)?)?.distance(reference)
    };
    let distances: Vec<f64> = (0..replicates).into_par_iter().map(again).collect::<Result<_>>()?;
    Ok(Estimate { value, standard_error: variance(&distances).map(f64::sqrt), n })
}
