//! Whether samples are copies of training examples: the distance of each sample to its nearest training example.
//!
//! - `closer = P(d_sample < d_held-out) + ½ P(=)`, over a sample and a held-out example, d the distance to the nearest training example:
//!   ½ where samples are like held-out data, towards 1 where they are copies, below ½ where they are far from all data. It is
//!   the statistic of Mann and Whitney; its variance is that of its projections, `s²_sample/M + s²_held-out/H`, the training set fixed.
//! - `authentic`, the part of samples that are farther from their nearest training example than that is from its own nearest neighbour
//!   among the training examples; an independent count given the training set, with the error of such. Near ½ for samples of the law
//!   itself.
//!
//! Reference: Meehan, Chaudhuri, Dasgupta 2020, arXiv 2004.05675, section 3; Alaa et al. 2022, arXiv 2102.08921, Eq. (8); DeLong et al.
//! 1988 for the variance.
//! Differs: one cell for the whole space, where Meehan et al. cut it into several.

use serde::Serialize;

use crate::distances::{Distances, feature_bytes, strip_bytes};
use crate::estimate::variance;
use crate::{Error, Estimate, FeatureSet, Result};

/// A sample and the training example that it is suspiciously near to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Suspect {
    /// The sample.
    pub sample: usize,
    /// The training example.
    pub training: usize,
    /// Their distance.
    pub distance: f64,
    /// That distance over the one of the training example to its nearest neighbour: 0 for a copy.
    pub ratio: f64,
}

/// How near samples are to training examples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Memorisation {
    /// How often a sample is nearer to the training set than a held-out example; ½ is none.
    pub closer: Estimate,
    /// The part of samples that are no copies.
    pub authentic: Estimate,
    /// The nearest samples, by their ratio, nearest first.
    pub suspects: Vec<Suspect>,
}

/// What [`memorisation`] takes, in bytes, the features in f32 included.
pub fn memorisation_bytes(samples: usize, training: usize, held_out: usize, dim: usize) -> u64 {
    let points = (samples + training + held_out) as u64;
    feature_bytes(samples + training + held_out, dim) + strip_bytes(dim) + 32 * points
}

/// Measures samples against the training examples, with held-out examples as the measure; tells the `suspects` nearest.
///
/// # Errors
/// For features of two spaces, and for fewer than two of any kind.
pub fn memorisation(
    samples: &FeatureSet,
    training: &FeatureSet,
    held_out: &FeatureSet,
    suspects: usize,
) -> Result<Memorisation> {
    let least = samples.len().min(training.len()).min(held_out.len());
    if least < 2 {
        return Err(Error::mismatch("features of a memorisation check", "at least 2 of each kind", least));
    }
    let of_samples = Distances::new(samples, training)?.nearest(false);
    let of_held_out = Distances::new(held_out, training)?.nearest(false);
    let of_training = Distances::new(training, training)?.nearest(true);
    let squares = |nearest: &[(usize, f64)]| nearest.iter().map(|(_, d)| *d).collect::<Vec<f64>>();
    let mut suspicious: Vec<Suspect> = of_samples
        .iter()
        .enumerate()
        .map(|(sample, &(nearest, square))| {
            let scale = of_training[nearest].1;
            // Twins in the training set have distance 0; a copy of them has the ratio 0, too.
            let ratio = if square == 0.0 { 0.0 } else { (square / scale).sqrt() };
            Suspect { sample, training: nearest, distance: square.sqrt(), ratio }
        })
        .collect();
    let authentic: Vec<f64> = suspicious.iter().map(|s| f64::from(u8::from(s.ratio > 1.0))).collect();
    suspicious.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    suspicious.truncate(suspects);
    Ok(Memorisation {
        closer: closer(&squares(&of_samples), &squares(&of_held_out)),
        authentic: Estimate::mean(&authentic)?,
        suspects: suspicious,
    })
}

/// `P(a < b) + ½ P(a = b)`, with the variance of its projections.
fn closer(a: &[f64], b: &[f64]) -> Estimate {
    let below_each = |values: &[f64], others: &[f64]| -> Vec<f64> {
        let mut sorted = others.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let part = |v: &f64| {
            let below = sorted.partition_point(|other| other < v);
            let not_above = sorted.partition_point(|other| other <= v);
            0.5 * (below + not_above) as f64 / sorted.len() as f64
        };
        values.iter().map(part).collect()
    };
    // The part of the others that each one is above; for a, what is wanted is the part that it is below.
    let (of_a, of_b) = (below_each(a, b), below_each(b, a));
    let value = of_b.iter().sum::<f64>() / b.len() as f64;
    let squares: f64 = [&of_a, &of_b].iter().filter_map(|of| Some(variance(of)? / of.len() as f64)).sum();
    Estimate { value, standard_error: Some(squares.sqrt()), n: a.len().min(b.len()) }
}
