//! What a running instance leaves for its commands to find it by.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A running instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunningInstance {
    /// Its process.
    pub pid: i32,
    /// When that process started, in the kernel's clock ticks: tells it from a later one with the same number.
    pub started: u64,
    /// The Kubernetes API.
    pub api: String,
    /// The gateway.
    pub gateway: Vec<SocketAddr>,
    /// The admin endpoint's local socket.
    pub admin: PathBuf,
    /// The registry.
    pub registry: SocketAddr,
    /// Socket by which images are loaded.
    pub images: PathBuf,
    /// Administrator's kubeconfig.
    pub kubeconfig: PathBuf,
}

/// Why no instance was found.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// None runs.
    #[error("knoll is not running on data directory {0}: start it with `knoll up`")]
    NotRunning(String),
    /// The file cannot be read or written.
    #[error("use {path}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What `proc_pid_stat(5)` says of a process from its third field on; `None` when it is gone.
fn process_fields(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let rest = stat.get(stat.rfind(')')? + 2..)?;
    let fields: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    (fields.first()? != "Z").then_some(fields)
}

/// Start time of a process in clock ticks since boot; `None` when it is gone.
pub fn process_start(pid: i32) -> Option<u64> {
    process_fields(pid)?.get(19)?.parse().ok()
}

/// Whether a process is gone or will be as soon as the kernel comes to it: it exits, or was killed. One that is just taking
/// the signal shows neither for a moment.
pub fn process_is_going(pid: i32) -> bool {
    /// It exits (`PF_EXITING`), or takes a signal that ends it (`PF_SIGNALED`).
    const EXITING: u64 = 0x4 | 0x400;
    const KILL: u64 = 1 << 8;
    let Some(fields) = process_fields(pid) else { return true };
    let number = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let (flags, pending) = (number(6), number(28));
    flags & EXITING != 0 || pending & KILL != 0
}

impl RunningInstance {
    /// The instance that runs on `data_dir`.
    ///
    /// # Errors
    /// When none does.
    pub fn find(data_dir: &Path) -> Result<Self, InstanceError> {
        let not_running = || InstanceError::NotRunning(data_dir.display().to_string());
        let text = match fs::read(Self::path(data_dir)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_running()),
            Err(source) => {
                return Err(InstanceError::File { path: Self::path(data_dir).display().to_string(), source });
            }
        };
        let instance: RunningInstance = serde_json::from_slice(&text).map_err(|_| not_running())?;
        if instance.is_running() && !process_is_going(instance.pid) { Ok(instance) } else { Err(not_running()) }
    }

    /// Whether its process is still that process.
    pub fn is_running(&self) -> bool {
        process_start(self.pid) == Some(self.started)
    }

    /// Where word of the instance on `data_dir` is left.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("instance.json")
    }

    /// The word that is left.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain fields serialize")
    }

    /// Takes that word back.
    pub fn retract(data_dir: &Path) {
        // Nothing is lost where it stays: its process is gone, and commands check that.
        fs::remove_file(Self::path(data_dir)).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_process_that_was_killed_is_going_before_it_is_gone() {
        let pid = i32::try_from(std::process::id()).expect("small");
        assert!(process_start(pid).is_some() && !process_is_going(pid));
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let pid = i32::try_from(child.id()).expect("small");
        assert!(!process_is_going(pid));
        child.kill().expect("is ours");
        // It is not gone before it was waited for.
        let begun = Instant::now();
        while !process_is_going(pid) {
            assert!(begun.elapsed() < Duration::from_secs(20), "it goes on");
            thread::yield_now();
        }
        assert!(process_start(pid).is_some());
        child.wait().expect("is ours");
        assert!(process_is_going(pid) && process_start(pid).is_none());
    }
}
