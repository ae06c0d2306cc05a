//! Instances that tests start and stop themselves, one at a time on the machine.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

use crate::{Cluster, PATIENCE, found_within, until};

/// An instance of a test's own, removed with all it has when this is dropped.
pub struct Own {
    /// How it is reached.
    pub cluster: Cluster,
    proxy: Child,
}

pub(crate) fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests with scripts/e2e"))
}

/// A directory of this name below the one for all tests.
///
/// # Panics
/// Without the environment of `scripts/e2e`.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(&variable("KNOLL_E2E_SCRATCH")).join(name)
}

/// Runs `knoll` on a data directory.
///
/// # Panics
/// When it cannot be started.
pub fn knoll(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(variable("KNOLL"));
    command.args(arguments).env("KNOLL_DATA_DIR", data).output().expect("knoll runs")
}

/// Runs `knoll` on a data directory and returns what it prints.
///
/// # Panics
/// When it fails.
pub fn succeed(data: &Path, arguments: &[&str]) -> String {
    printed(knoll(data, arguments), &arguments.join(" "))
}

fn printed(output: Output, what: &str) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "knoll {what}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Own {
    /// Starts one on the directory of this name.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn up(name: &str) -> Self {
        Self::up_as(name, Command::new(variable("KNOLL")), &[])
    }

    /// Starts one with further options, by a command that ends with the name of the program.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn up_as(name: &str, command: Command, options: &[&str]) -> Self {
        let data = scratch(name);
        up(&data, command, options);
        let (mut cluster, proxy) = reach(data);
        cluster.instance()["gateway"][0].as_str().expect("it has one").clone_into(&mut cluster.gateway);
        let own = Self { cluster, proxy };
        ["hello", "actor"].into_iter().for_each(|image| own.load(image));
        own
    }

    /// Loads one of the images that the tests use.
    ///
    /// # Panics
    /// When it is not taken.
    pub fn load(&self, image: &str) {
        let archive = self.cluster.images.join(format!("{image}.tar"));
        succeed(self.data(), &["image", "load", &archive.display().to_string()]);
    }

    /// Starts it again.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn up_again(&self) {
        self.up_again_with(&[]);
    }

    /// Starts it again, with other options.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn up_again_with(&self, options: &[&str]) {
        up(self.data(), Command::new(variable("KNOLL")), options);
    }

    /// Where it keeps what it has.
    pub fn data(&self) -> &Path {
        &self.cluster.data_dir
    }

    /// Sends a signal to the server and waits until it is gone.
    ///
    /// # Panics
    /// When it does not go.
    pub fn signal(&self, signal: &str) {
        let process = self.cluster.instance()["pid"].to_string();
        self.cluster.succeed("kill", &[&format!("-{signal}"), &process], "");
        until("the server is gone", || is_gone(&process).then_some(()));
    }
}

/// An API server that keeps its data in a directory, with a `kubectl proxy` for cheap reads.
pub(crate) fn reach(data: PathBuf) -> (Cluster, Child) {
    let kubeconfig = data.join("admin.kubeconfig");
    let images: PathBuf = variable("KNOLL_E2E_IMAGES").into();
    let mut proxy = Command::new("kubectl");
    proxy.args(["proxy", "--port=0"]).env("KUBECONFIG", &kubeconfig).stdout(Stdio::piped());
    let mut proxy = proxy.spawn().expect("kubectl starts");
    let mut line = String::new();
    BufReader::new(proxy.stdout.take().expect("piped")).read_line(&mut line).expect("it says where");
    let cluster = Cluster {
        kubeconfig,
        gateway: String::new(),
        proxy: line.split_whitespace().last().unwrap_or_default().to_owned(),
        knoll: variable("KNOLL").into(),
        data_dir: data,
        images,
    };
    (cluster, proxy)
}

/// Whether a process is no more.
fn is_gone(process: &str) -> bool {
    let place = format!("/proc/{process}");
    // A child that nobody waited for is gone, too, once its other threads are.
    let ended = fs::read_to_string(format!("{place}/stat")).map_or(true, |stat| stat.contains(") Z "));
    let alone = fs::read_dir(format!("{place}/task")).map_or(true, |tasks| tasks.count() <= 1);
    ended && alone
}

fn up(data: &Path, mut command: Command, options: &[&str]) {
    let command = command.args(["up", "--detach"]).args(options).env("KNOLL_DATA_DIR", data);
    printed(command.output().expect("knoll runs"), "up");
}

impl Own {
    /// Prints how the instance stands and the end of its log, for whoever reads why a test failed.
    fn tell(&self) {
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["get", "ksvc,route,revision,kpa,pod,event", "-A", "-o", "wide", "--request-timeout=5s"]);
        let output = kubectl.env("KUBECONFIG", &self.cluster.kubeconfig).output();
        eprintln!("{}", output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default());
        let log = fs::read(self.data().join("knoll.log")).unwrap_or_default();
        let lines: Vec<_> = String::from_utf8_lossy(&log).lines().rev().take(40).map(str::to_owned).collect();
        lines.iter().rev().for_each(|line| eprintln!("{line}"));
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        drop(self.proxy.kill());
        drop(self.proxy.wait());
        // It is not asked to stop: its containers would be waited for.
        let word = fs::read(self.data().join("instance.json")).unwrap_or_default();
        if let Ok(instance) = serde_json::from_slice::<Value>(&word) {
            let process = instance["pid"].to_string();
            drop(Command::new("kill").args(["-KILL", &process]).output());
            found_within(PATIENCE, || is_gone(&process).then_some(()));
        }
        knoll(self.data(), &["reset", "--yes"]);
    }
}
