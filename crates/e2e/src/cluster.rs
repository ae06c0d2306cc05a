//! The instance under test.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
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
    /// `host:port` of a `kubectl proxy`: cheap reads without a process each.
    pub proxy: String,
    /// The `knoll` program.
    pub knoll: PathBuf,
    /// Data directory of the instance.
    pub data_dir: PathBuf,
    /// Directory of the images' archives.
    pub images: PathBuf,
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests with scripts/e2e"))
}

/// Path of a kind in the API, by the name `kubectl` knows it under.
fn collection(kind: &str) -> &'static str {
    match kind {
        "pods" => "api/v1 pods",
        "services" => "api/v1 services",
        "endpoints" => "api/v1 endpoints",
        "events" => "api/v1 events",
        "configmaps" => "api/v1 configmaps",
        "secrets" => "api/v1 secrets",
        "jobs" => "apis/batch/v1 jobs",
        "endpointslices" => "apis/discovery.k8s.io/v1 endpointslices",
        "deployments" => "apis/apps/v1 deployments",
        "replicasets" => "apis/apps/v1 replicasets",
        "ksvc" => "apis/serving.knative.dev/v1 services",
        "configurations" => "apis/serving.knative.dev/v1 configurations",
        "revisions" => "apis/serving.knative.dev/v1 revisions",
        "routes" => "apis/serving.knative.dev/v1 routes",
        "podautoscalers" => "apis/autoscaling.internal.knative.dev/v1alpha1 podautoscalers",
        "metrics" => "apis/autoscaling.internal.knative.dev/v1alpha1 metrics",
        "ingresses" => "apis/networking.internal.knative.dev/v1alpha1 ingresses",
        "serverlessservices" => "apis/networking.internal.knative.dev/v1alpha1 serverlessservices",
        "certificates" => "apis/networking.internal.knative.dev/v1alpha1 certificates",
        "brokers" => "apis/eventing.knative.dev/v1 brokers",
        "triggers" => "apis/eventing.knative.dev/v1 triggers",
        "eventtypes" => "apis/eventing.knative.dev/v1beta2 eventtypes",
        "pingsources" => "apis/sources.knative.dev/v1 pingsources",
        "sinkbindings" => "apis/sources.knative.dev/v1 sinkbindings",
        "images" => "apis/caching.internal.knative.dev/v1alpha1 images",
        _ => panic!("no path is known for {kind}"),
    }
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
            proxy: variable("KNOLL_E2E_PROXY"),
            knoll: variable("KNOLL").into(),
            data_dir: variable("KNOLL_DATA_DIR").into(),
            images: variable("KNOLL_E2E_IMAGES").into(),
        }
    }

    /// A program with the instance's environment.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("KUBECONFIG", &self.kubeconfig).env("KNOLL_DATA_DIR", &self.data_dir);
        command
    }

    /// Runs a program and returns what came of it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, program: impl AsRef<Path>, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("piped");
        // A command that does not read its input closes it.
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        child.wait_with_output().expect("the program ends")
    }

    /// Runs a program and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn succeed(&self, program: impl AsRef<Path>, arguments: &[&str], input: &str) -> String {
        let name = program.as_ref().display().to_string();
        let output = self.run(program, arguments, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {}: {errors}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `kubectl` and returns what came of it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> Output {
        self.run("kubectl", arguments, input)
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
        self.succeed("kubectl", arguments, input)
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

    /// Reads a path of the API; `Null` when there is nothing.
    ///
    /// # Panics
    /// When the API does not answer.
    pub fn read(&self, path: &str) -> Value {
        let answer = crate::get(&self.proxy, "localhost", path).expect("the API answers");
        match answer.status {
            200 => serde_json::from_str(&answer.body).expect("it is JSON"),
            404 => Value::Null,
            status => panic!("{path}: {status}: {}", answer.body),
        }
    }

    /// An object; `Null` when there is none.
    pub fn object(&self, namespace: &str, kind: &str, name: &str) -> Value {
        let (version, plural) = collection(kind).split_once(' ').expect("two words");
        self.read(&format!("/{version}/namespaces/{namespace}/{plural}/{name}"))
    }

    /// The objects of a kind in a namespace, `query` being what follows the question mark.
    pub fn list(&self, namespace: &str, kind: &str, query: &str) -> Vec<Value> {
        let (version, plural) = collection(kind).split_once(' ').expect("two words");
        match self.read(&format!("/{version}/namespaces/{namespace}/{plural}?{query}"))["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        }
    }

    /// Sets keys of a ConfigMap of `knative-serving`; they are put back when the answer is dropped.
    ///
    /// # Panics
    /// When it is refused.
    pub fn configure(&self, name: &'static str, data: Value) -> Configured {
        let before = self.object("knative-serving", "configmaps", name)["data"].clone();
        let keys = data.as_object().expect("keys and values").keys();
        let back: serde_json::Map<String, Value> = keys.map(|key| (key.clone(), before[key].clone())).collect();
        let configured = Configured { cluster: self.clone(), name, back: back.into() };
        configured.patch(&data);
        configured
    }

    /// What a running instance leaves word of: its process, addresses.
    ///
    /// # Panics
    /// When there is no such word.
    pub fn instance(&self) -> Value {
        let text = fs::read(self.data_dir.join("instance.json")).expect("an instance runs");
        serde_json::from_slice(&text).expect("it is JSON")
    }
}

/// A changed ConfigMap, which is put back when this is dropped.
pub struct Configured {
    cluster: Cluster,
    name: &'static str,
    back: Value,
}

impl Configured {
    fn patch(&self, data: &Value) {
        let patch = serde_json::json!({ "data": data }).to_string();
        let words = ["-n", "knative-serving", "patch", "configmap", self.name, "--type=merge", "-p", &patch];
        self.cluster.kubectl(&words);
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        self.patch(&self.back);
    }
}
