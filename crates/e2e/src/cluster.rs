//! The instance under test.

use std::{
    env,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// The instance under test, as `scripts/e2e` describes it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// `host:port` of the gateway.
    pub gateway: String,
    /// The `knoll` program.
    pub knoll: PathBuf,
    /// Data directory of the instance.
    pub data_dir: PathBuf,
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests with scripts/e2e"))
}

impl Cluster {
    /// The instance that the environment names.
    ///
    /// # Panics
    /// When it names none.
    pub fn from_environment() -> Self {
        Self {
            kubeconfig: variable("KUBECONFIG").into(),
            gateway: variable("KNOLL_E2E_GATEWAY"),
            knoll: variable("KNOLL").into(),
            data_dir: variable("KNOLL_DATA_DIR").into(),
        }
    }

    /// A program with the instance's environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig).env("KNOLL_DATA_DIR", &self.data_dir);
        command
    }

    /// Runs `kubectl` and returns what came of it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command("kubectl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("piped");
        // A command that does not read its input closes it.
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        child.wait_with_output().expect("kubectl ends")
    }

    /// Runs `kubectl` and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_with(arguments, "")
    }

    /// Runs `kubectl` with `input` and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.try_kubectl(arguments, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {errors}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// An object (or list) as JSON; `Null` when there is none.
    ///
    /// # Panics
    /// When the answer is not JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut words = arguments.to_vec();
        words.extend(["-o", "json"]);
        let output = self.try_kubectl(&words, "");
        if !output.status.success() {
            return Value::Null;
        }
        serde_json::from_slice(&output.stdout).expect("kubectl prints JSON")
    }
}
