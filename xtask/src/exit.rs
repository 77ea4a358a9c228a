//! Exit codes: one for each kind of failure, found in the error's chain.
//!
//! 64 usage · 65 bad data · 70 not finite · 73 run in use · 74 input/output · 75 stopped early, run again · 78 configuration · 1 anything else.

use std::error::Error as StdError;
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
    /// Another process is at work on the same file.
    InUse(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text)
        | Self::Data(text)
        | Self::Config(text)
        | Self::NonFinite(text)
        | Self::Stopped(text)
        | Self::InUse(text)) = self;
        f.write_str(text)
    }
}

impl StdError for Failure {}

/// The exit code of a command line that makes no sense.
pub const USAGE: u8 = 64;
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

/// An error and its causes in one line: of each the first line, and none that the ones before have told.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let told = cause.lines().next().unwrap_or_default().trim_end();
        if line.is_empty() {
            line = told.to_owned();
        } else if !line.contains(told) {
            line = format!("{line}: {told}");
        }
    }
    line
}

// A transparent error is not in the chain of the one around it, so the arms below look inside.
fn code_of(cause: &(dyn StdError + 'static)) -> Option<u8> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(match failure {
            Failure::Usage(_) => USAGE,
            Failure::Data(_) => DATA,
            Failure::NonFinite(_) => NON_FINITE,
            Failure::Stopped(_) => TRY_AGAIN,
            Failure::InUse(_) => IN_USE,
            Failure::Config(_) => CONFIG,
        });
    }
    if let Some(error) = cause.downcast_ref::<sde_train::Error>() {
        return of_training(error);
    }
    if let Some(error) = cause.downcast_ref::<sde_data::Error>() {
        return of_data(error);
    }
    if let Some(error) = cause.downcast_ref::<sde_eval::Error>() {
        return of_evaluation(error);
    }
    if let Some(error) = cause.downcast_ref::<sde_solvers::Error>() {
        return of_solver(error);
    }
    if let Some(error) = cause.downcast_ref::<sde_nets::Error>() {
        return of_network(error);
    }
    if let Some(error) = cause.downcast_ref::<sde_core::Error>() {
        return of_mathematics(error);
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
        Error::Data(error) => return of_data(error),
        Error::Net(error) => return of_network(error),
        Error::Core(error) => return of_mathematics(error),
        _ => return None,
    })
}

fn of_data(error: &sde_data::Error) -> Option<u8> {
    use sde_data::Error;
    match error {
        Error::Io { .. } | Error::Fetch { .. } => Some(IO),
        Error::Core(error) => of_mathematics(error),
        Error::Candle(_) => None,
        _ => Some(DATA),
    }
}

fn of_evaluation(error: &sde_eval::Error) -> Option<u8> {
    use sde_eval::Error;
    match error {
        Error::Quantised { .. } | Error::Mismatch { .. } => Some(CONFIG),
        Error::NonFinite { .. } => Some(DATA),
        Error::Unfinished { .. } => Some(NON_FINITE),
        Error::FeatureSpaces { .. } | Error::FewSamples { .. } => Some(CONFIG),
        Error::Network(error) => of_network(error),
        Error::Solver(error) => of_solver(error),
        Error::Data(error) => of_data(error),
        Error::Core(error) => of_mathematics(error),
        _ => None,
    }
}

fn of_solver(error: &sde_solvers::Error) -> Option<u8> {
    use sde_solvers::Error;
    match error {
        Error::NonFinite { .. } | Error::Unfinished { .. } => Some(NON_FINITE),
        Error::Core(error) => of_mathematics(error),
        Error::Candle(_) => None,
        _ => Some(CONFIG),
    }
}

fn of_network(error: &sde_nets::Error) -> Option<u8> {
    use sde_nets::Error;
    match error {
        Error::Format(_) | Error::Pth(_) => Some(DATA),
        Error::Io { .. } => Some(IO),
        Error::Core(error) => of_mathematics(error),
        Error::Candle(_) => None,
        _ => Some(CONFIG),
    }
}

fn of_mathematics(error: &sde_core::Error) -> Option<u8> {
    use sde_core::Error;
    match error {
        Error::NonFinite { .. } => Some(NON_FINITE),
        Error::Range { .. }
        | Error::Grid { .. }
        | Error::Undefined { .. }
        | Error::Mismatch { .. }
        | Error::Device { .. } => Some(CONFIG),
        _ => None,
    }
}
