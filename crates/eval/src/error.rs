//! The one error type of the evaluators: what was expected, what was found, and the way out.

use sde_solvers::Outcome;

/// Everything that can go wrong while a number is measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Data that takes finitely many values has no density.
    #[error(
        "data of {levels} levels has no density and its likelihood no bound; dequantise it, spreading each level over its cell"
    )]
    Quantised {
        /// The number of levels.
        levels: u32,
    },
    /// Two things that do not fit each other, or a setting that makes no sense.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// What was asked for.
        what: &'static str,
        /// What would have fitted.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A point that is not finite.
    #[error("{what}: entry {entry} of row {row} is {found}; remove or replace it")]
    NonFinite {
        /// The points.
        what: &'static str,
        /// The row, from 0.
        row: usize,
        /// The entry of that row, from 0.
        entry: usize,
        /// The value.
        found: f64,
    },
    /// Features that cannot be compared.
    #[error(
        "features of two kinds: their {what} is {first} and {second}; compute both with the same network, layer, resizing and input range"
    )]
    FeatureSpaces {
        /// In what they differ.
        what: &'static str,
        /// Of the first.
        first: String,
        /// Of the second.
        second: String,
    },
    /// Too few samples for a Fréchet distance.
    #[error(
        "a covariance of {dim} features from {n} samples is singular, and the distance reads too high: take more than {dim} samples, measure KID instead, or allow small samples"
    )]
    FewSamples {
        /// The number of samples.
        n: usize,
        /// Entries of a feature.
        dim: usize,
    },
    /// An iteration that did not end.
    #[error("{what} did not converge; {way_out}")]
    NoConvergence {
        /// What was computed.
        what: &'static str,
        /// What to do about it.
        way_out: &'static str,
    },
    /// More than a method can take.
    #[error("{what}: {found} are more than {most}; {instead}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: usize,
        /// The most.
        most: usize,
        /// What to do instead.
        instead: &'static str,
    },
    /// No solve of a whole evaluation arrived, so there is nothing to average.
    #[error(
        "none of {samples} samples was solved; the first {}", way_out(*.first)
    )]
    Unfinished {
        /// The number of samples.
        samples: usize,
        /// How the first solve that did not finish ended.
        first: Outcome,
    },
    /// A solver failed.
    #[error(transparent)]
    Solver(#[from] sde_solvers::Error),
    /// A network, or its weights, failed.
    #[error(transparent)]
    Network(#[from] sde_nets::Error),
    /// A data set failed.
    #[error(transparent)]
    Data(#[from] sde_data::Error),
    /// Mathematics or a model failed.
    #[error(transparent)]
    Core(#[from] sde_core::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn mismatch(what: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Mismatch { what, expected: expected.into(), found: found.to_string() }
    }

    /// The error of a batch, its row told as the example it holds.
    pub(crate) fn of_examples(self, indices: &[usize]) -> Self {
        match self {
            Self::NonFinite { what, row, entry, found } => {
                Self::NonFinite { what, row: indices.get(row).copied().unwrap_or(row), entry, found }
            }
            other => other,
        }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How a solve ended, and what to do about it.
fn way_out(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::StepTooSmall => {
            "needed a step below the smallest: loosen the tolerances or lower the smallest step"
        }
        Outcome::NfeCap => "used all the evaluations it may: raise the cap or loosen the tolerances",
        Outcome::NonFinite | Outcome::Finished => {
            "met a value that is not finite: look at the field and the points"
        }
    }
}
