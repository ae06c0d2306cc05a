//! Exit codes, after `sysexits.h`.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked.
    Success = 0,
    /// It ran and found something wrong (`knoll doctor`, a failed push).
    Failure = 1,
    /// The arguments make no sense.
    Usage = 64,
    /// Something it needs is not there: no running instance, a missing kernel feature, a port in use.
    Unavailable = 69,
    /// A bug in knoll.
    Software = 70,
    /// The system refuses: disk full, data directory not usable.
    System = 71,
    /// Root is needed.
    NoPermission = 77,
    /// The data directory belongs to something else or is damaged.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
