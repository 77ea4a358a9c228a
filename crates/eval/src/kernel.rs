//! Kernel distance between features (KID): the squared maximum mean discrepancy with the polynomial kernel
//!
//! `k(x, y) = (x·y/D + 1)³`,
//!
//! without bias at any number of samples. [`kid`] takes all pairs; [`KidSubsets`] the mean over random subsets, which is what other
//! programs print, with the standard deviation over subsets (divisor: their number). That is no error bar, because subsets share
//! samples; the standard error told beside it is the delete-d jackknife's: with subsets of m among N and their variance v it is
//! `√(v m/(N − m) + v/S)`, the second term for having drawn S subsets only. Where both laws are nearly equal it is too large, by up
//! to √(1 + N/m); N is the smaller side's, and where the other has many more the error is too large for it, too.
//!
//! Reference: Bińkowski et al. 2018, arXiv 1801.01401, section 4; Shao, Wu 1989, doi 10.1214/aos/1176347263, for the jackknife.

use std::ops::Range;

use faer::Mat;
use sde_core::noise::{Noise, Stream};
use serde::Serialize;

use crate::estimate::{mean, variance};
use crate::matrix::small_product;
use crate::u_statistic::{Tiles, discrepancy};
use crate::{Error, Estimate, FeatureSet, Result};

/// The site of the draws that choose subsets.
const SUBSET_SITE: u32 = 3;

/// The distance of all samples, by all pairs: N² D operations, and the standard error of the estimate.
///
/// # Errors
/// For features of two spaces, and unless there are four on each side.
pub fn kid(samples: &FeatureSet, reference: &FeatureSet) -> Result<Estimate> {
    samples.check_pair(reference)?;
    let [xx, yy, xy] =
        [(samples, samples), (reference, reference), (samples, reference)].map(|(a, b)| polynomial(a, b));
    discrepancy("kernel distance", (samples.len(), reference.len()), [&xx, &yy, &xy])
}

fn polynomial<'a>(x: &'a FeatureSet, y: &'a FeatureSet) -> impl Tiles + 'a {
    let d = x.dim() as f64;
    move |rows: Range<usize>, columns: Range<usize>| -> Mat<f64> {
        let mut tile = small_product(x.block(rows).as_ref(), y.block(columns).as_ref());
        for column in tile.col_iter_mut() {
            column.iter_mut().for_each(|k| *k = (*k / d + 1.0).powi(3));
        }
        tile
    }
}

/// How subsets are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KidSubsets {
    /// m, samples of each side in a subset; others take 1000.
    pub size: usize,
    /// S; others take 100.
    pub count: usize,
}

/// The distance by subsets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KidBySubsets {
    /// The mean over subsets, and its standard error; unknown where a subset is all of a side.
    pub estimate: Estimate,
    /// The standard deviation over subsets, with their number as the divisor.
    pub spread: f64,
    /// The distance of each subset.
    pub values: Vec<f64>,
}

impl KidSubsets {
    /// The distance by random subsets, each without repetition.
    ///
    /// # Errors
    /// As [`kid`], and unless there is a subset and samples for it.
    pub fn kid(&self, samples: &FeatureSet, reference: &FeatureSet, noise: Noise) -> Result<KidBySubsets> {
        let smaller = samples.len().min(reference.len());
        if self.count == 0 || self.size > smaller {
            let found = format!("{} subsets of {} out of {smaller}", self.count, self.size);
            return Err(Error::mismatch(
                "subsets of a kernel distance",
                "at least one, of at most all",
                found,
            ));
        }
        let chosen = |subset: usize, side: u32, n: usize| {
            let mut order = noise.draws_at(Stream::Metric, SUBSET_SITE, subset as u32, side).permutation(n);
            order.truncate(self.size);
            order
        };
        let subsets = (0..self.count)
            .map(|subset| [chosen(subset, 0, samples.len()), chosen(subset, 1, reference.len())]);
        kid_of_subsets(samples, reference, subsets)
    }
}

/// The distance by given subsets, each the indices of samples and of references.
///
/// # Errors
/// As [`kid`], for an index that does not exist, and for no subset.
pub fn kid_of_subsets(
    samples: &FeatureSet,
    reference: &FeatureSet,
    subsets: impl IntoIterator<Item = [Vec<usize>; 2]>,
) -> Result<KidBySubsets> {
    let mut largest = 0;
    let mut values = Vec::new();
    for [of_samples, of_reference] in subsets {
        largest = largest.max(of_samples.len()).max(of_reference.len());
        values.push(kid(&samples.select(&of_samples)?, &reference.select(&of_reference)?)?.value);
    }
    let n = samples.len().min(reference.len());
    let spread = variance(&values).map_or(0.0, |v| v * (values.len() - 1) as f64 / values.len() as f64);
    let share = largest as f64 / n.saturating_sub(largest) as f64;
    let error = variance(&values).map(|v| (v * (share + 1.0 / values.len() as f64)).sqrt());
    if values.is_empty() {
        return Err(Error::mismatch("subsets of a kernel distance", "at least one", 0));
    }
    let estimate = Estimate { value: mean(&values), standard_error: error.filter(|e| e.is_finite()), n };
    Ok(KidBySubsets { estimate, spread: spread.sqrt(), values })
}
