//! Finding the monitor, or starting it.

use std::ffi::OsString;
use std::path::PathBuf;

/// How to start a monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// The program; usually this one.
    pub program: PathBuf,
    /// Its arguments up to the monitor's own: usually `["monitor"]`. `--options <json>` with
    /// [`Options`] is appended; the program hands the parsed options to `monitor::run`.
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
