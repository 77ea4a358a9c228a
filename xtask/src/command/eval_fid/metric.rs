//! The metrics by name, and what they need.

use anyhow::Result;
use sde_eval::Extrapolation;

use crate::build::sampler::unknown;
use crate::cli::EvalFid;
use crate::exit::Failure;

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Fréchet distance.
    Fid,
    /// The same of infinitely many samples.
    FidInfinity,
    /// Kernel distance.
    Kid,
    /// Precision, recall, density, coverage.
    Prdc,
    /// Copies of training examples.
    Memorisation,
    /// Inception Score.
    Score,
}

/// Pictures that prdc needs at least, for each neighbour.
const A_NEIGHBOUR: usize = 5;

impl Metric {
    const ALL: [(&'static str, Self); 6] = [
        ("fid", Self::Fid),
        ("fid-infinity", Self::FidInfinity),
        ("kid", Self::Kid),
        ("prdc", Self::Prdc),
        ("memorisation", Self::Memorisation),
        ("is", Self::Score),
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, metric)| *metric == self).map_or("", |(name, _)| name)
    }

    /// Whether it compares pictures one by one with those of the reference.
    fn keeps_reference(self) -> bool {
        matches!(self, Self::Kid | Self::Prdc | Self::Memorisation)
    }

    /// The pictures that it takes on either side, and why.
    fn least(self, dim: usize, args: &EvalFid) -> (usize, &'static str) {
        match self {
            Self::Fid if !args.allow_small => {
                (dim + 1, "the covariance of fewer is singular, and the distance far too high")
            }
            Self::FidInfinity if !args.allow_small => (4 * (dim + 1), "it measures quarters of them"),
            Self::FidInfinity => (8, "it measures quarters of them"),
            Self::Fid => (6, "of three groups two are needed"),
            Self::Kid => (4, "its error bar needs them"),
            Self::Prdc => (A_NEIGHBOUR * (args.neighbours + 1), "it measures fifths of them"),
            Self::Memorisation => (2, "a nearest neighbour is needed"),
            Self::Score => (1, ""),
        }
    }
}

/// Those that were asked for.
pub struct Metrics(pub Vec<Metric>);

impl Metrics {
    /// By their names.
    pub fn named(names: &[String]) -> Result<Self> {
        let find = |name: &String| {
            let found = Metric::ALL.iter().find(|(known, _)| known == name).map(|(_, metric)| *metric);
            found.ok_or_else(|| unknown("metric", name, &Metric::ALL.map(|(name, _)| name)).into())
        };
        names.iter().map(find).collect::<Result<_>>().map(Self)
    }

    /// Whether classes are asked for.
    pub fn has_score(&self) -> bool {
        self.0.contains(&Metric::Score)
    }

    /// Whether the features of samples have to be in memory.
    pub fn keeps_samples(&self) -> bool {
        self.0.iter().any(|metric| !matches!(metric, Metric::Fid | Metric::Score))
    }

    /// Whether the features of the reference are made use of, if there are any.
    pub fn likes_reference(&self) -> bool {
        self.0.iter().any(|metric| metric.keeps_reference() || *metric == Metric::FidInfinity)
    }

    /// The metrics that need the features of the reference.
    pub fn names_of_kept(&self) -> Vec<&'static str> {
        self.0.iter().filter(|metric| metric.keeps_reference()).map(|metric| metric.name()).collect()
    }

    /// Refuses too few pictures of either side before the work.
    pub fn check_pictures(&self, n: usize, what: &str, dim: usize, args: &EvalFid) -> Result<()> {
        for metric in &self.0 {
            let (least, why) = metric.least(dim, args);
            if n < least {
                let way_out = if matches!(metric, Metric::Fid | Metric::FidInfinity) {
                    "; take more, --metrics kid, which has no bias, a smaller layer (--dims), or --allow-small"
                } else {
                    ""
                };
                let text = format!(
                    "{}: {n} {what}, at least {least} are needed with features of {dim} entries: {why}{way_out}",
                    metric.name()
                );
                return Err(Failure::Config(text).into());
            }
        }
        Ok(())
    }
}

/// How FID is extrapolated from n samples: as many groups, and then sizes in each, as leave every part more samples than entries.
pub fn line(n: usize, dim: usize) -> Extrapolation {
    let choices = [(4, 4), (4, 3), (3, 3), (3, 2), (2, 2)];
    let fits = |(groups, sizes): &(usize, usize)| n / (groups * sizes) > dim;
    let (groups, sizes) = choices.into_iter().find(fits).unwrap_or((2, 2));
    Extrapolation { groups, sizes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_line_have_more_samples_than_entries() {
        for (n, groups, sizes) in [(50_000, 4, 4), (30_000, 4, 3), (10_000, 2, 2), (100, 2, 2)] {
            assert_eq!(line(n, 2048), Extrapolation { groups, sizes }, "{n}");
        }
    }
}
