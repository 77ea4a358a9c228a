//! The one error type of the data crate: what was expected, what was found, where, and the way out.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place inside a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The file as a whole.
    File,
    /// A byte offset, from 0.
    Byte(u64),
    /// A line of text, from 1.
    Line(u64),
    /// A record or row, from 0.
    Row(u64),
    /// A named entry of an archive, or a named column.
    Entry(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Byte(offset) => write!(f, ", byte {offset}"),
            Self::Line(line) => write!(f, ", line {line}"),
            Self::Row(row) => write!(f, ", row {row}"),
            Self::Entry(name) => write!(f, ", {name:?}"),
        }
    }
}

/// Everything that can go wrong between a file and a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// A file that is not what its format says.
    #[error("{}{place}: expected {expected}, found {found}", .file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// Where in it.
        place: Place,
        /// What the format demands, or what would be read.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file that would take more memory than is allowed.
    #[error("{}: more than {limit} bytes once unfolded; split it if it is meant to be this large", .file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The largest size allowed.
        limit: u64,
    },
    /// A file under a published name and of the published length, with other contents.
    #[error(
        "{}: SHA-256 is {found}, the published file has {expected}; fetch it again or remove it",
        .file.display()
    )]
    Hash {
        /// The file.
        file: PathBuf,
        /// The published hash.
        expected: String,
        /// The hash of what is there.
        found: String,
    },
    /// A data set that is neither on the disk nor could be fetched.
    #[error("{set} not found: put {files} into {} ({reason})", .directory.display())]
    Missing {
        /// The data set.
        set: &'static str,
        /// The files wanted.
        files: String,
        /// Where they belong.
        directory: PathBuf,
        /// Why it could not be had otherwise.
        reason: String,
    },
    /// A file that could not be fetched.
    #[error("cannot fetch {what}: {reason}")]
    Fetch {
        /// The file, and of what.
        what: String,
        /// Why not.
        reason: String,
    },
    /// A name that stands for nothing.
    #[error("unknown {what} {name:?}; known: {known}")]
    Unknown {
        /// What was to be named.
        what: &'static str,
        /// The name given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// An example that does not exist.
    #[error("example {index} does not exist: the data set has {len}")]
    Index {
        /// The example asked for.
        index: usize,
        /// How many there are.
        len: usize,
    },
    /// A data set without examples, or a shape without entries.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A value that is not finite.
    #[error("row {row}, column {column}: {found} is not finite; remove or replace it")]
    NonFinite {
        /// The row, from 0.
        row: usize,
        /// The column, from 0.
        column: usize,
        /// The value.
        found: f64,
    },
    /// Two things that do not fit each other.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// The operation.
        what: &'static str,
        /// What would have fitted.
        expected: String,
        /// What was given.
        found: String,
    },
    /// An image that could not be encoded.
    #[error("png: {0}")]
    Picture(#[source] image::ImageError),
    /// An error of the mathematics crate.
    #[error(transparent)]
    Core(#[from] sde_core::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn malformed(
        file: &Path,
        place: Place,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Malformed { file: file.to_owned(), place, expected: expected.into(), found: found.into() }
    }

    pub(crate) fn mismatch(
        what: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Mismatch { what, expected: expected.into(), found: found.into() }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
