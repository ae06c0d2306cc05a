//! Those who are not trusted try to get out, in, or to take the machine down: the administrator of a namespace, a pod with
//! every capability that can be granted, a local user, an image. Nothing is reached, and the server stays the same process.
//!
//! `docs/security.md` says who is trusted with what; each claim of its table has its attempt here.

mod image;
mod pod;
mod tenant;
mod user;

use std::{
    path::Path,
    process::Command,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use knoll_e2e::{Cluster, Namespace};

/// Held by each test; by one that takes what the machine has, alone.
static MACHINE: RwLock<()> = RwLock::new(());

/// The server when a test began; it must be the same, and ready, when the test ends.
struct Watchman {
    cluster: Cluster,
    pid: i64,
    _shared: Option<RwLockReadGuard<'static, ()>>,
    _alone: Option<RwLockWriteGuard<'static, ()>>,
}

impl Watchman {
    /// Beside other tests.
    fn new(space: &Namespace) -> Self {
        let mut watchman = Self::of(space);
        watchman._shared = Some(MACHINE.read().unwrap_or_else(PoisonError::into_inner));
        watchman
    }

    /// Without other tests beside this one.
    fn alone(space: &Namespace) -> Self {
        let mut watchman = Self::of(space);
        watchman._alone = Some(MACHINE.write().unwrap_or_else(PoisonError::into_inner));
        watchman
    }

    fn of(space: &Namespace) -> Self {
        let cluster = space.cluster.clone();
        let pid = pid(&cluster);
        Self { cluster, pid, _shared: None, _alone: None }
    }
}

impl Drop for Watchman {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_eq!(pid(&self.cluster), self.pid, "the server was started again");
        let ready = self.cluster.succeed(&self.cluster.knoll, &["admin", "ready"], "");
        assert!(!ready.contains("[-]"), "{ready}");
    }
}

fn pid(cluster: &Cluster) -> i64 {
    let pid = cluster.instance()["pid"].as_i64().expect("an instance runs");
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "the server has ended");
    pid
}

/// A command as somebody without any right on the machine.
fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", program]);
    command
}
