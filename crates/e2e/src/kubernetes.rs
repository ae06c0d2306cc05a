//! A real kube-apiserver without the controllers that a cluster brings along, and `knoll controller` over it.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    Cluster, example,
    own::{reach, scratch, succeed, variable},
    until,
};

/// The API server, which ends when this is dropped; etcd is the script's.
pub struct Kubernetes {
    /// How it is reached.
    pub cluster: Cluster,
    proxy: Child,
    server: Child,
}

impl Kubernetes {
    /// Starts one, and gives it what `knoll controller` needs: definitions, a namespace, an account.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn up() -> Self {
        let data = scratch("");
        let server = start(&data);
        let (cluster, proxy) = reach(data);
        let kubernetes = Self { cluster, proxy, server };
        kubernetes.ready();
        kubernetes.define();
        kubernetes.cluster.kubectl(&["apply", "-f", &example("controller.yaml")]);
        kubernetes.write_kubeconfig();
        kubernetes
    }

    /// Applies the definitions of Knative's kinds.
    ///
    /// # Panics
    /// When they are refused.
    pub fn define(&self) {
        let definitions = succeed(&self.cluster.data_dir, &["crds"]);
        self.cluster.kubectl_with(&["apply", "--server-side", "-f", "-"], &definitions);
        let established = "customresourcedefinitions.apiextensions.k8s.io";
        self.cluster.kubectl(&["wait", "--for=condition=Established", established, "--all", "--timeout=120s"]);
    }

    /// Kills the API server and starts it again: what watches knew is too old for it.
    ///
    /// # Panics
    /// When it does not become ready again.
    pub fn restart(&mut self) {
        self.server.kill().expect("it runs");
        self.server.wait().expect("it is ours");
        self.server = start(&self.cluster.data_dir);
        self.ready();
    }

    /// Starts `knoll controller` with the rights of its account; the name tells its log and lease from others'.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn controller(&self, name: &str) -> Controller {
        let data = self.cluster.data_dir.join(name);
        let log = data.with_extension("log");
        let file = OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let mut command = Command::new(variable("KNOLL"));
        command.args(["controller", "--activator", "10.96.0.10:80"]).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("KUBECONFIG", self.cluster.data_dir.join("controller.kubeconfig")).env("KNOLL_DATA_DIR", data);
        Controller { process: command.stderr(file).spawn().expect("knoll starts"), log }
    }

    fn ready(&self) {
        until("the API server is ready", || {
            self.cluster.try_kubectl(&["get", "--raw=/readyz"], "").status.success().then_some(())
        });
    }

    /// A kubeconfig of the controllers' account.
    fn write_kubeconfig(&self) {
        let path = self.cluster.data_dir.join("controller.kubeconfig");
        fs::copy(&self.cluster.kubeconfig, &path).expect("a file");
        let token = self.cluster.kubectl(&["-n", "knative-serving", "create", "token", "knoll-controller"]);
        let path = path.display().to_string();
        let set = |words: &[&str]| {
            let mut all = vec!["--kubeconfig", &path, "config"];
            all.extend(words);
            self.cluster.kubectl(&all);
        };
        set(&["set-credentials", "controller", "--token", token.trim()]);
        set(&["set-context", "controller", "--cluster", "kubernetes", "--user", "controller"]);
        set(&["use-context", "controller"]);
    }
}

fn start(data: &Path) -> Child {
    let log = OpenOptions::new().create(true).append(true).open(data.join("kube-apiserver.log")).expect("a log");
    let mut command = Command::new(data.join("kube-apiserver"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts")
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        for process in [&mut self.proxy, &mut self.server] {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// A process of `knoll controller`, which ends when this is dropped.
pub struct Controller {
    process: Child,
    log: PathBuf,
}

impl Controller {
    /// Who it is in its lease, once it has led.
    ///
    /// # Panics
    /// When there is no log.
    pub fn holder(&self) -> Option<String> {
        let log = self.log();
        let (_, led) = log.rsplit_once(" holder=\"")?;
        Some(led.split('"').next()?.to_owned())
    }

    /// What it has logged.
    ///
    /// # Panics
    /// When there is no log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("a log")).into_owned()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
