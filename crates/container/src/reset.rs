//! Removing every trace, whatever state it is in: processes, cgroups, namespaces, veths, rules, files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};

use crate::cgroup::Cgroups;
use crate::launch::Options;
use crate::network::{self, Config, NetworkError};

/// How long killed processes may take to go.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// Processes do not go.
    #[error("processes {0:?} do not end")]
    Processes(Vec<i32>),
    /// Cgroups cannot be removed.
    #[error("cannot remove cgroups")]
    Cgroups(#[source] io::Error),
    /// A mount cannot be removed.
    #[error("cannot unmount {path}")]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Files cannot be removed.
    #[error("cannot remove {path}")]
    Files {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The network cannot be cleaned.
    #[error("cannot clean the network")]
    Network(#[from] NetworkError),
}

/// Kills the monitor and everything it runs, and removes all that either has made; with `network` also the host's
/// rules and addresses. Blocks for as long as killed processes take, at most ten seconds. May be repeated.
///
/// The caller must not run in a cgroup below `options.cgroup_root`.
pub fn reset(options: &Options, network: Option<&Config>) -> Result<(), ResetError> {
    remove_cgroups(&options.cgroup_root)?;
    for directory in [&options.runtime_dir, &options.state_dir] {
        unmount_below(directory)?;
    }
    if let Some(config) = network {
        network::teardown(config)?;
    }
    for path in [&options.runtime_dir, &options.state_dir, &options.socket] {
        knoll_tree::remove(path).map_err(|source| ResetError::Files { path: path.clone(), source })?;
    }
    Ok(())
}

fn remove_cgroups(root: &str) -> Result<(), ResetError> {
    let cgroups = Cgroups::discover().map_err(ResetError::Cgroups)?;
    // A root such as `a/b` must not take `a` with it, and an empty one not the machine.
    if root.trim_matches('/').is_empty() {
        return Err(ResetError::Cgroups(io::Error::new(io::ErrorKind::InvalidInput, "the cgroup root is empty")));
    }
    if let Err(error) = cgroups.kill(root) {
        tracing::debug!(%error, "nothing to kill by cgroup");
    }
    let begin = Instant::now();
    loop {
        let left = cgroups.processes(root);
        if left.is_empty() {
            break;
        }
        if begin.elapsed() > PATIENCE {
            return Err(ResetError::Processes(left));
        }
        thread::sleep(PAUSE);
    }
    loop {
        match remove_group(&cgroups, root).and_then(|()| cgroups.remove_devices(root)) {
            Ok(()) => return Ok(()),
            Err(_) if begin.elapsed() < PATIENCE => thread::sleep(PAUSE),
            Err(error) => return Err(ResetError::Cgroups(error)),
        }
    }
}

fn remove_group(cgroups: &Cgroups, group: &str) -> io::Result<()> {
    for child in cgroups.children(group) {
        remove_group(cgroups, &format!("{group}/{child}"))?;
    }
    cgroups.remove(group)
}

/// Unmounts everything at or below a directory, last mounted first.
fn unmount_below(directory: &Path) -> Result<(), ResetError> {
    let Ok(directory) = fs::canonicalize(directory) else { return Ok(()) };
    let text = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|source| ResetError::Mount { path: directory.clone(), source })?;
    let places = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut places: Vec<PathBuf> = places.filter(|place| place.starts_with(&directory)).collect();
    places.reverse();
    for path in places {
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(errno) => return Err(ResetError::Mount { path, source: errno.into() }),
        }
    }
    Ok(())
}
