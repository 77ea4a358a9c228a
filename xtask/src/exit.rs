//! Exit codes: one for each kind of failure, found in the error's chain.
//!
//! 64 usage · 65 bad data · 70 not finite · 73 run in use · 74 input/output · 75 stopped early, run again · 78 configuration · 1 anything else.

use std::fmt;

/// A failure that the runner itself detects, with its exit code.
#[derive(Debug)]
pub enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// A file holds what it should not.
    Data(String),
    /// The configuration makes no sense.
    Config(String),
    /// A number is not finite, or a solve cannot go on.
    NonFinite(String),
    /// A signal stopped the work; running again continues.
    Stopped(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text)
        | Self::Data(text)
        | Self::Config(text)
        | Self::NonFinite(text)
        | Self::Stopped(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Failure {}

const USAGE: u8 = 64;
const DATA: u8 = 65;
const NON_FINITE: u8 = 70;
const IN_USE: u8 = 73;
const IO: u8 = 74;
const TRY_AGAIN: u8 = 75;
const CONFIG: u8 = 78;

/// The exit code of an error.
pub fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(1)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(match failure {
            Failure::Usage(_) => USAGE,
            Failure::Data(_) => DATA,
            Failure::NonFinite(_) => NON_FINITE,
            Failure::Stopped(_) => TRY_AGAIN,
            Failure::Config(_) => CONFIG,
        });
    }
    if let Some(error) = cause.downcast_ref::<sde_train::Error>() {
        return of_training(error);
    }
    if let Some(error) = cause.downcast_ref::<sde_data::Error>() {
        return Some(of_data(error));
    }
    if let Some(error) = cause.downcast_ref::<sde_core::Error>() {
        return of_mathematics(error);
    }
    if let Some(sde_solvers::Error::NonFinite { .. }) = cause.downcast_ref() {
        return Some(NON_FINITE);
    }
    if cause.is::<sde_solvers::Error>() || cause.is::<sde_nets::Error>() {
        return Some(CONFIG);
    }
    cause.is::<std::io::Error>().then_some(IO)
}

fn of_training(error: &sde_train::Error) -> Option<u8> {
    use sde_train::Error;
    Some(match error {
        Error::Config { .. } | Error::Resume { .. } => CONFIG,
        Error::NonFinite { .. } => NON_FINITE,
        Error::InUse { .. } => IN_USE,
        Error::Io { .. } => IO,
        Error::Corrupt { .. } | Error::NoneVerifies { .. } => DATA,
        _ => return None,
    })
}

fn of_data(error: &sde_data::Error) -> u8 {
    match error {
        sde_data::Error::Io { .. } => IO,
        _ => DATA,
    }
}

fn of_mathematics(error: &sde_core::Error) -> Option<u8> {
    use sde_core::Error;
    match error {
        Error::NonFinite { .. } => Some(NON_FINITE),
        Error::Range { .. } | Error::Grid { .. } | Error::Undefined { .. } | Error::Mismatch { .. } => {
            Some(CONFIG)
        }
        _ => None,
    }
}
