//! The one error type of the networks: what was expected, what was found, and the way out.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

/// Everything that can go wrong when a network is built, loaded or evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that describes no network.
    #[error("network configuration: `{field}` must be {expected}, found {found}")]
    Config {
        /// The key of the configuration.
        field: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Tensors that do not fit an operator.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The operator or network.
        what: &'static str,
        /// What would have fitted.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Weights that are not those of the network.
    #[error("these weights belong to another network: {0}")]
    Weights(WeightsMismatch),
    /// Two tensors of one network with the same name.
    #[error("the network asks for `{0}` twice: give every layer its own path")]
    DuplicateName(String),
    /// Bytes that are not a safetensors file.
    #[error("not a readable safetensors file: {0}")]
    Format(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A checkpointed network was asked for second derivatives.
    #[error(
        "a network with `checkpoint` has no second derivatives, which CANDLE_GRAD_DO_NOT_DETACH asks the tape to keep: \
         unset one or the other"
    )]
    SecondDerivatives,
    /// A gradient of a gradient where the tape keeps none: it would be wrong without a word.
    #[error(
        "{what} needs gradients of gradients, and the tape keeps none: set CANDLE_GRAD_DO_NOT_DETACH=1 in the environment \
         before the program starts (the runner does so for presets that need it), or take differences"
    )]
    NotTaped {
        /// What was asked for.
        what: &'static str,
    },
    /// A checkpointed network was differentiated without a place for the gradients of its parameters.
    #[error(
        "the parameters of a network with `checkpoint` get their gradients from sde_nets::backward, not from Tensor::backward"
    )]
    UncollectedGradients,
    /// Bytes that are not a `.pth` file of plain data and tensors.
    #[error("not a readable .pth file: {0}")]
    Pth(String),
    /// A published network that differs from those of this library.
    #[error("{what}: `{key}` is {found}; supported: {supported}")]
    Unsupported {
        /// The file, or the layout.
        what: String,
        /// The setting.
        key: String,
        /// Its value.
        found: String,
        /// The values that would have been accepted, or the way out.
        supported: String,
    },
    /// The operating system refused.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// On what.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The mathematics underneath failed.
    #[error(transparent)]
    Core(#[from] sde_core::Error),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How a set of weights differs from the tensors that a network asks for, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WeightsMismatch {
    /// Asked for, not there.
    pub missing: Vec<String>,
    /// There, not asked for.
    pub unexpected: Vec<String>,
    /// Of another shape: name, shape asked for, shape found.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl WeightsMismatch {
    /// An error, unless there is no difference.
    pub(crate) fn check(self) -> Result<()> {
        if self == Self::default() { Ok(()) } else { Err(Error::Weights(self)) }
    }
}

impl Display for WeightsMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let misshapen = self
            .misshapen
            .iter()
            .map(|(name, expected, found)| format!("{name} (expected {expected:?}, found {found:?})"));
        let parts = [
            ("missing", self.missing.clone()),
            ("unexpected", self.unexpected.clone()),
            ("of another shape", misshapen.collect()),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{} {what}: {}", names.len(), listed(&names)))
            .collect();
        f.write_str(&parts.join("; "))
    }
}

/// The first names of a list, and how many follow.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => shown,
        Some(rest) => format!("{shown} and {rest} more"),
    }
}

impl Error {
    /// The key `field` describes no network.
    pub(crate) fn config(field: &'static str, expected: impl Display, found: impl Display) -> Self {
        Self::Config { field, expected: expected.to_string(), found: found.to_string() }
    }
}

impl Error {
    /// What the operating system said about `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }

    /// `key` of `what` is what no network here has.
    pub(crate) fn unsupported(
        what: impl Display,
        key: impl Display,
        found: impl Display,
        supported: impl Display,
    ) -> Self {
        let (what, key) = (what.to_string(), key.to_string());
        Self::Unsupported { what, key, found: found.to_string(), supported: supported.to_string() }
    }
}

impl From<Error> for sde_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => Self::Candle(error),
            Error::Core(error) => error,
            other => Self::model(other),
        }
    }
}
