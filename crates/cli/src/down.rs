//! `knoll down`.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    arguments::DownArguments,
    instance::{InstanceError, RunningInstance},
};

/// Why it did not go down.
#[derive(Debug, thiserror::Error)]
pub enum DownError {
    /// There is none.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// It cannot be signalled.
    #[error("stop process {pid}: {errno}")]
    Signal {
        /// The process.
        pid: i32,
        /// What the system said.
        errno: Errno,
    },
    /// It takes too long.
    #[error("process {pid} did not stop within {seconds} s: look at its log, and raise --timeout")]
    Timeout {
        /// The process.
        pid: i32,
        /// The limit.
        seconds: u64,
    },
}

/// Stops the running instance and waits for its end.
///
/// # Errors
/// When there is none, or it does not stop in time.
pub fn run(arguments: &DownArguments) -> Result<(), DownError> {
    let instance = RunningInstance::find(&arguments.data.data_dir)?;
    let signal = if arguments.keep_pods { Signal::SIGTERM } else { Signal::SIGINT };
    let pid = instance.pid;
    kill(Pid::from_raw(pid), signal).map_err(|errno| DownError::Signal { pid, errno })?;
    let limit = Duration::from_secs(arguments.timeout);
    let start = Instant::now();
    while instance.is_running() {
        if start.elapsed() > limit {
            return Err(DownError::Timeout { pid, seconds: arguments.timeout });
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
