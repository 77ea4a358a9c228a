//! FID∞: the Fréchet distance that infinitely many samples would have, by its line in 1/n.
//!
//! From n samples FID reads high by `b/n`, and b depends on the model, so two models at the same n may stand in the wrong order. In
//! each of G disjoint groups of samples the distance is measured at the sizes `n_G / j`, j = 1 … J, each time over all j disjoint parts,
//! whose mean counts; least squares through (j/n_G, mean) give an intercept. The groups share no sample, so their intercepts are
//! independent and give mean and standard error.
//!
//! A reference that is statistics counts as exact: its own bias, about b/n_ref, stays. A reference of kept features is cut like the
//! samples, part against part, and its bias goes, too.
//!
//! Reference: Chong, Forsyth 2020, arXiv 1911.07023, section 3.
//! Differs: disjoint parts, where the reference draws overlapping ones; the standard error, which it does not have.

use rayon::prelude::*;
use serde::Serialize;

use crate::estimate::mean;
use crate::{Allow, Error, Estimate, FeatureGaussian, FeatureSet, Result, frechet_distance};

/// What samples are measured against.
#[derive(Debug, Clone, Copy)]
pub enum Reference<'a> {
    /// A law that counts as exact.
    Exact(&'a FeatureGaussian),
    /// Features, which are extrapolated, too.
    Features(&'a FeatureSet),
}

/// How the line is laid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extrapolation {
    /// G: independent intercepts behind the standard error.
    pub groups: usize,
    /// J: the smallest size is a J-th of a group.
    pub sizes: usize,
}

/// An extrapolated distance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FidInfinity {
    /// The mean intercept; `n` is the number of groups.
    pub estimate: Estimate,
    /// The sizes, largest first.
    pub sizes: Vec<usize>,
    /// The mean distance at each size, over all groups.
    pub distances: Vec<f64>,
}

impl Extrapolation {
    /// FID∞ of samples, taken in the order given: it must not tell anything about them.
    ///
    /// # Errors
    /// As [`frechet_distance`] for the smallest parts, and unless there are two groups, two sizes and two samples a part.
    pub fn fid(&self, samples: &FeatureSet, reference: Reference<'_>, allow: Allow) -> Result<FidInfinity> {
        let Self { groups, sizes } = *self;
        let others = match reference {
            Reference::Exact(_) => usize::MAX,
            Reference::Features(features) => {
                samples.check_pair(features)?;
                features.len()
            }
        };
        let of_group = samples.len().min(others) / groups.max(1);
        let smallest = of_group / sizes.max(1);
        if groups < 2 || sizes < 2 || smallest < 2 {
            let found = format!("{groups} groups, {sizes} sizes, {} samples", samples.len());
            let expected = "two groups, two sizes and two samples at the smallest size";
            return Err(Error::mismatch("extrapolation of a distance", expected, found));
        }
        if smallest <= samples.dim() && !allow.small {
            return Err(Error::FewSamples { n: smallest, dim: samples.dim() });
        }
        let parts: Vec<(usize, usize, usize)> = (0..groups)
            .flat_map(|g| (1..=sizes).flat_map(move |j| (0..j).map(move |part| (g, j, part))))
            .collect();
        let distance = |&(group, j, part): &(usize, usize, usize)| {
            let size = of_group / j;
            // Dealt like cards, so that every size sees all of the group.
            let chosen: Vec<usize> = (0..size).map(|k| (k * j + part) * groups + group).collect();
            let law = FeatureGaussian::of_features(&samples.select(&chosen)?)?;
            match reference {
                Reference::Exact(exact) => frechet_distance(&law, exact, allow),
                Reference::Features(features) => {
                    let other = FeatureGaussian::of_features(&features.select(&chosen)?)?;
                    frechet_distance(&law, &other, allow)
                }
            }
        };
        let measured: Vec<f64> = parts.par_iter().map(distance).collect::<Result<_>>()?;
        let at = |group: usize, j: usize| {
            let here = parts.iter().zip(&measured).filter(|((g, k, _), _)| (*g, *k) == (group, j));
            mean(&here.map(|(_, d)| *d).collect::<Vec<_>>())
        };
        let lines: Vec<Vec<f64>> = (0..groups).map(|g| (1..=sizes).map(|j| at(g, j)).collect()).collect();
        let inverse: Vec<f64> = (1..=sizes).map(|j| 1.0 / (of_group / j) as f64).collect();
        let intercepts: Vec<f64> = lines.iter().map(|line| intercept(&inverse, line)).collect();
        Ok(FidInfinity {
            estimate: Estimate::mean(&intercepts)?,
            sizes: (1..=sizes).map(|j| of_group / j).collect(),
            distances: (0..sizes)
                .map(|k| lines.iter().map(|line| line[k]).sum::<f64>() / groups as f64)
                .collect(),
        })
    }
}

/// Of the least-squares line.
fn intercept(x: &[f64], y: &[f64]) -> f64 {
    let (mx, my) = (mean(x), mean(y));
    let slope = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum::<f64>()
        / x.iter().map(|x| (x - mx).powi(2)).sum::<f64>();
    my - slope * mx
}
