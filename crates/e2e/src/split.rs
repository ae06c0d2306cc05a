//! An instance whose roles are processes of their own, which tests kill one by one.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    Cluster, knoll,
    own::{reach, variable},
    scratch, succeed,
};

/// Address of the gateway for outside clients.
const GATEWAY: &str = "127.0.0.1:8080";

/// An instance in parts, removed with all it has when this is dropped.
pub struct Split {
    /// How it is reached.
    pub cluster: Cluster,
    proxy: Child,
    processes: BTreeMap<&'static str, Child>,
}

impl Split {
    /// The roles, in the order in which they are started here. Any would do.
    pub const ROLES: [&'static str; 6] = ["api", "controller", "autoscaler", "gateway", "broker", "node"];

    /// Starts one on the directory of this name.
    ///
    /// # Panics
    /// When a role does not become ready.
    pub fn up(name: &str) -> Self {
        let data = scratch(name);
        let mut processes = BTreeMap::new();
        for role in Self::ROLES {
            processes.insert(role, start(&data, role));
        }
        let (mut cluster, proxy) = reach(data);
        GATEWAY.clone_into(&mut cluster.gateway);
        let split = Self { cluster, proxy, processes };
        for image in ["hello", "actor"] {
            let archive = split.cluster.images.join(format!("{image}.tar"));
            succeed(&split.cluster.data_dir, &["image", "load", &archive.display().to_string()]);
        }
        split
    }

    /// Kills a role's process with `SIGKILL`, and waits until it is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self, role: &'static str) {
        let mut process = self.processes.remove(role).expect("it runs");
        process.kill().expect("it is ours");
        process.wait().expect("it is ours");
    }

    /// Starts a role again.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(&mut self, role: &'static str) {
        self.processes.insert(role, start(&self.cluster.data_dir, role));
    }

    /// What a role counts.
    ///
    /// # Panics
    /// When its admin endpoint does not answer.
    pub fn metrics(&self, role: &str) -> String {
        let words = if role == "api" { vec!["admin", "metrics"] } else { vec!["admin", "--role", role, "metrics"] };
        succeed(&self.cluster.data_dir, &words)
    }
}

/// Starts a role, and waits until it says that it is ready. What it logs is kept beside the data.
fn start(data: &Path, role: &str) -> Child {
    let mut beside = data.as_os_str().to_owned();
    beside.push(format!("-{role}"));
    let mut command = Command::new(variable("KNOLL"));
    command.arg(role);
    match role {
        "api" => command.args(["--node-name", "knoll"]).env("KNOLL_DATA_DIR", data),
        _ => command.env("KUBECONFIG", data.join(format!("{role}.kubeconfig"))).env("KNOLL_DATA_DIR", &beside),
    };
    match role {
        "controller" => command.args(["--standalone", "--http-port", "8080"]),
        "gateway" => command.args(["--http-addr", GATEWAY, "--no-port-80"]),
        _ => &mut command,
    };
    beside.push(".log");
    let log = fs::OpenOptions::new().create(true).append(true).open(&beside).expect("a log");
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("knoll starts");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("it speaks");
    assert!(line.contains("is ready"), "knoll {role} did not start: see {}", beside.display());
    process
}

impl Drop for Split {
    fn drop(&mut self) {
        drop(self.proxy.kill());
        drop(self.proxy.wait());
        for process in self.processes.values_mut() {
            drop(process.kill());
            drop(process.wait());
        }
        for role in ["-node", "-broker"] {
            let mut data = self.cluster.data_dir.as_os_str().to_owned();
            data.push(role);
            knoll(Path::new(&data), &["reset", "--yes"]);
        }
        knoll(&self.cluster.data_dir, &["reset", "--yes"]);
    }
}
