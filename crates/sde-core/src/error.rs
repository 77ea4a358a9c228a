//! The one error type of the mathematics: what was found, where, and the way out.

/// Everything that can go wrong in `sde-core` and in the crates that evaluate fields and models.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter outside its range.
    #[error("{what} must lie in [{}, {}]: got {}", Short(*.low), Short(*.high), Short(*.found))]
    Range {
        /// The parameter's name.
        what: &'static str,
        /// The value found.
        found: f64,
        /// Smallest value allowed.
        low: f64,
        /// Largest value allowed.
        high: f64,
    },
    /// A time grid that does not decrease strictly.
    #[error("time grid must decrease strictly: t[{index}] = {after} after t[{}] = {before}", .index - 1)]
    Grid {
        /// Index of the offending time.
        index: usize,
        /// The time before it.
        before: f64,
        /// The offending time.
        after: f64,
    },
    /// Two operators, or an operator and a state, that do not fit each other.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// The operation.
        what: &'static str,
        /// What would have fitted.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A quantity that does not exist for this process at this time.
    #[error("{what} does not exist at t = {t}: {hint}")]
    Undefined {
        /// The quantity.
        what: &'static str,
        /// The time.
        t: f64,
        /// The way out.
        hint: &'static str,
    },
    /// A value that is not finite.
    #[error("{what} is not finite: {found}")]
    NonFinite {
        /// The quantity.
        what: String,
        /// The value found.
        found: f64,
    },
    /// Differentiation was asked of a field whose output does not depend on its input through Candle's tape.
    #[error("no gradient reaches the input: {hint}")]
    NoGradient {
        /// The way out.
        hint: &'static str,
    },
    /// A device that cannot be opened.
    #[error("device {name}: {why}; {hint}")]
    Device {
        /// Its name.
        name: String,
        /// What is missing.
        why: String,
        /// The way out.
        hint: String,
    },
    /// A user-supplied model or field failed.
    #[error("{0}")]
    Model(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// A number as one would write it: the largest and smallest ones with an exponent, not with 309 digits.
struct Short(f64);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = self.0.abs();
        if size != 0.0 && !(1e-6..1e12).contains(&size) && size.is_finite() {
            return write!(f, "{:e}", self.0);
        }
        write!(f, "{}", self.0)
    }
}

impl Error {
    /// Wraps the error of a user-supplied model or field.
    pub fn model(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Model(source.into())
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Refuses a value outside `[low, high]` (or NaN).
pub(crate) fn in_range(what: &'static str, found: f64, low: f64, high: f64) -> Result<f64> {
    if found >= low && found <= high { Ok(found) } else { Err(Error::Range { what, found, low, high }) }
}
