//! Finding the monitor, or starting it.

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long another process that starts the monitor at the same time may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How to start a monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// The program; usually this one.
    pub program: PathBuf,
    /// Its arguments up to the monitor's own: usually `["monitor"]`. `--options <json>` with [`Options`] is appended;
    /// the program hands the parsed options to [`crate::monitor::run`] before it starts any thread.
    pub args: Vec<OsString>,
    /// Where it keeps things.
    pub options: Options,
}

/// Where a monitor keeps things. Two monitors on one machine need different values everywhere.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Options {
    /// Its socket.
    pub socket: PathBuf,
    /// On disk: writable layers and what is known of containers. Must not be below a directory that others may
    /// rename.
    pub state_dir: PathBuf,
    /// Until the machine restarts: namespaces and pipes; on a tmpfs.
    pub runtime_dir: PathBuf,
    /// The cgroup below which everything lives, e.g. `knoll`.
    pub cgroup_root: String,
    /// Run in the foreground instead of as a daemon.
    #[serde(default)]
    pub foreground: bool,
}

/// Closes every descriptor but stdin, stdout and stderr: what whoever started this program has left open. It must be
/// the first thing a program does; with several threads it does nothing and fails.
pub fn close_inherited() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "other threads may use what is open"));
    }
    crate::sys::close_from(3)
}

/// Asks the kernel to spare this process, and what it starts, when memory runs out: what containers use up must not cost
/// those that look after them. Best effort: it needs a capability that whoever is not root lacks.
pub fn outlive_memory_shortage() {
    drop(std::fs::write("/proc/self/oom_score_adj", "-999"));
}

/// Why there is no monitor.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The options cannot be passed on.
    #[error("cannot pass the monitor's options on")]
    Options(#[source] serde_json::Error),
    /// The program cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended without accepting connections.
    #[error("the monitor did not start ({status}): {said}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it wrote to stderr.
        said: String,
    },
}

impl Launcher {
    /// Makes sure that a monitor accepts connections: `true` when this call has started it. Blocks for a few
    /// milliseconds, at most five seconds.
    pub fn ensure(&self) -> Result<bool, LaunchError> {
        let begin = Instant::now();
        loop {
            if UnixStream::connect(&self.options.socket).is_ok() {
                return Ok(false);
            }
            match self.start() {
                Ok(()) => return Ok(true),
                // Somebody else may be starting it; or one that is ending still holds the lock.
                Err(LaunchError::Ended { .. }) if begin.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(20))
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn start(&self) -> Result<(), LaunchError> {
        let options = serde_json::to_string(&self.options).map_err(LaunchError::Options)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).arg("--options").arg(options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let output = command.output().map_err(|source| LaunchError::Start { program: self.program.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(LaunchError::Ended { status: output.status, said })
    }
}
