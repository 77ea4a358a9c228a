//! The one error type of training: what was found, where, and the way out.

use std::path::{Path, PathBuf};

/// Everything that can go wrong between a configuration and a trained network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that cannot be run.
    #[error("training configuration: `{field}` must be {expected}, found {found}")]
    Config {
        /// The key.
        field: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A run that is resumed with another configuration or seed than it was started with.
    #[error("{}: made with {what} {expected}, resumed with {found}; start a new run instead", .path.display())]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// The checkpoint's.
        expected: String,
        /// The caller's.
        found: String,
    },
    /// A number that is not finite. It has reached neither the log nor a checkpoint; a loss or a gradient has not
    /// reached the parameters either.
    #[error("{what} is {found} at step {step}; {}", last_checkpoint(.checkpoint.as_deref()))]
    NonFinite {
        /// The quantity.
        what: String,
        /// The step.
        step: u64,
        /// The value.
        found: f64,
        /// The last checkpoint, if there is one.
        checkpoint: Option<PathBuf>,
    },
    /// A parameter that the loss does not depend on.
    #[error(
        "no gradient reaches parameter {name:?}; an operation without a backward pass cuts the graph, or it is unused"
    )]
    NoGradient {
        /// Its name.
        name: String,
    },
    /// A run directory that another process works in.
    #[error("{}: in use by {}; wait for it, or stop it", .path.display(), holder(*.pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, if it left its number.
        pid: Option<u32>,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// A file that is not what was written.
    #[error("{}: {why}", .file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No checkpoint of a run can be read.
    #[error("{}: none of the {} checkpoints can be read; the newest: {newest}", .path.display(), .count)]
    NoneVerifies {
        /// The directory of the checkpoints.
        path: PathBuf,
        /// How many there are.
        count: usize,
        /// Why the newest was refused.
        newest: Box<Error>,
    },
    /// A hook of the caller failed.
    #[error("{0}")]
    Hook(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The data set failed.
    #[error(transparent)]
    Data(#[from] sde_data::Error),
    /// The network failed.
    #[error(transparent)]
    Net(#[from] sde_nets::Error),
    /// The mathematics failed.
    #[error(transparent)]
    Core(#[from] sde_core::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

fn last_checkpoint(path: Option<&Path>) -> String {
    match path {
        Some(path) => {
            format!("the last checkpoint is {}; resume from it with a lower learning rate", path.display())
        }
        None => "there is no checkpoint yet; check the data and lower the learning rate".into(),
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or("another process".into(), |pid| format!("process {pid}"))
}

impl Error {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(file: &Path, why: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), why: why.into() }
    }

    pub(crate) fn config(field: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Config { field, expected: expected.into(), found: found.to_string() }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
