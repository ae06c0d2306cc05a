//! Why a command failed, and the exit code that says so.

use std::{error::Error, fmt, io};

use knoll_cli::Exit;
pub(crate) use knoll_faults::chain;

/// What goes to the terminal, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    text: String,
}

impl Failure {
    /// From an error with all its causes. A full disk is the system's failure, whatever it kept from being done.
    pub(crate) fn new(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        if is_full(error) {
            return Self { exit: Exit::System, text: format!("{}: free some space there", chain(error)) };
        }
        Self { exit, text: chain(error) }
    }

    /// From a text.
    pub(crate) fn text(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// From an I/O error while doing `what`.
    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied => Exit::NoPermission,
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => Exit::Unavailable,
            _ => Exit::System,
        };
        let fix = match error.kind() {
            io::ErrorKind::StorageFull => ": free some space there",
            io::ErrorKind::PermissionDenied => ": run as root",
            _ => "",
        };
        Self { exit, text: format!("{what}: {error}{fix}") }
    }
}

/// Whether a full disk is behind an error.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        cause = error.source();
    }
    false
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
