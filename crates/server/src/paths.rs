//! Where an instance keeps things.

use std::path::{self, Path, PathBuf};

use knoll_cli::instance::RunningInstance;
use knoll_container::launch;

/// Where an instance keeps things.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) data: PathBuf,
}

/// What an instance keeps in its data directory; anything else there is not ours to remove. The store goes last: it
/// holds the mark that the directory is ours.
pub(crate) const OURS: &[&str] = &[
    "images",
    "registry",
    "pki",
    "node",
    "containers",
    "events",
    "admin.kubeconfig",
    "admin.new",
    "controller.kubeconfig",
    "controller.new",
    "autoscaler.kubeconfig",
    "autoscaler.new",
    "gateway.kubeconfig",
    "gateway.new",
    "broker.kubeconfig",
    "broker.new",
    "node.kubeconfig",
    "node.new",
    "knoll.log",
    "knoll.log.old",
    "instance.json",
    "instance.new",
    "store",
];

/// Until the machine restarts. One instance runs on a machine at a time, so there is one place.
pub(crate) const RUNTIME: &str = "/run/knoll";
/// The cgroup below which all containers are.
pub(crate) const CGROUP: &str = "knoll";

impl Paths {
    /// Of the instance on this directory, which may be named from here: the monitor and containers work elsewhere.
    pub(crate) fn new(data: &Path) -> Self {
        Self { data: path::absolute(data).unwrap_or_else(|_| data.to_owned()) }
    }

    /// Objects.
    pub(crate) fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// Events that brokers and channels have taken.
    pub(crate) fn events(&self) -> PathBuf {
        self.data.join("events")
    }

    /// Images.
    pub(crate) fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// The machine's own login at the registry: a docker configuration directory.
    pub(crate) fn registry(&self) -> PathBuf {
        self.data.join("registry")
    }

    /// Socket by which the command line loads images.
    pub(crate) fn images_socket() -> PathBuf {
        Path::new(RUNTIME).join("images/images.sock")
    }

    /// Keys and certificates.
    pub(crate) fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    /// The node's volumes and logs.
    pub(crate) fn node(&self) -> PathBuf {
        self.data.join("node")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.role_kubeconfig("admin")
    }

    /// The kubeconfig of a role that is a process of its own.
    pub(crate) fn role_kubeconfig(&self, role: &str) -> PathBuf {
        self.data.join(format!("{role}.kubeconfig"))
    }

    /// What commands find a running instance by.
    pub(crate) fn instance(&self) -> PathBuf {
        RunningInstance::path(&self.data)
    }

    /// Log of an instance in the background.
    pub(crate) fn log(&self) -> PathBuf {
        self.data.join("knoll.log")
    }

    /// Held by the instance that runs on this machine.
    pub(crate) fn lock() -> PathBuf {
        Path::new(RUNTIME).join("lock")
    }

    /// The admin endpoint's local socket.
    pub(crate) fn admin() -> PathBuf {
        Path::new(RUNTIME).join("admin.sock")
    }

    /// What the monitor is told.
    pub(crate) fn monitor(&self) -> launch::Options {
        launch::Options {
            socket: Path::new(RUNTIME).join("monitor.sock"),
            state_dir: self.data.join("containers"),
            runtime_dir: Path::new(RUNTIME).join("containers"),
            cgroup_root: CGROUP.into(),
            foreground: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_named_from_here_is_the_same_from_everywhere() {
        let here = std::env::current_dir().expect("there is one");
        let paths = Paths::new(Path::new("some/where"));
        assert_eq!(paths.data, here.join("some/where"));
        assert!(paths.store().is_absolute() && paths.monitor().state_dir.is_absolute());
        assert_eq!(Paths::new(Path::new("/var/lib/knoll")).data, Path::new("/var/lib/knoll"));
    }
}
