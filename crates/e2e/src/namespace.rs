//! A namespace of a test's own.

use std::{
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{Answer, Cluster, PATIENCE, found_within, get, until_within};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace that goes with the test.
pub struct Namespace {
    /// The instance.
    pub cluster: Cluster,
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// Makes one whose name starts with `prefix`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(prefix: &str) -> Self {
        Self::within(Cluster::from_environment(), prefix)
    }

    /// Makes one of an instance, its name starting with `prefix`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn within(cluster: Cluster, prefix: &str) -> Self {
        let name = format!("{prefix}-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        cluster.kubectl(&["create", "namespace", &name]);
        Self { cluster, name }
    }

    /// Runs `kubectl` in it.
    ///
    /// # Panics
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(&self.words(arguments))
    }

    /// Runs `kubectl` in it, which must fail, and returns its complaint.
    ///
    /// # Panics
    /// When it succeeds.
    pub fn kubectl_refused(&self, arguments: &[&str], input: &str) -> String {
        let output = self.cluster.try_kubectl(&self.words(arguments), input);
        assert!(!output.status.success(), "kubectl {} succeeds", arguments.join(" "));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn words<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut words = vec!["-n", &self.name];
        words.extend(arguments);
        words
    }

    /// An object, by the plural of its kind; `Null` when there is none.
    pub fn object(&self, kind: &str, name: &str) -> Value {
        self.cluster.object(&self.name, kind, name)
    }

    /// The objects of a kind.
    pub fn list(&self, kind: &str) -> Vec<Value> {
        self.cluster.list(&self.name, kind, "")
    }

    /// The pods of a Knative Service that are not on their way out.
    pub fn pods(&self, service: &str) -> Vec<Value> {
        let query = format!("labelSelector=serving.knative.dev/service={service}");
        let mut pods = self.cluster.list(&self.name, "pods", &query);
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pods
    }

    /// How many pods of a Knative Service are ready.
    pub fn ready_pods(&self, service: &str) -> usize {
        self.pods(service).iter().filter(|pod| condition(pod, "Ready")["status"] == "True").count()
    }

    /// Applies YAML in it.
    ///
    /// # Panics
    /// When it is refused.
    pub fn apply(&self, yaml: &str) -> String {
        self.cluster.kubectl_with(&["-n", &self.name, "apply", "-f", "-"], yaml)
    }

    /// Applies one of the project's examples in it.
    ///
    /// # Panics
    /// When it is refused.
    pub fn apply_example(&self, file: &str) -> String {
        self.kubectl(&["apply", "-f", &example(file)])
    }

    /// Makes a Knative Service `actor` of one instance that stays, waits until it is ready, and returns its host.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn actor(&self) -> String {
        let service = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "actor"},
            "spec": {"template": {
                "metadata": {"annotations": {"autoscaling.knative.dev/min-scale": "1"}},
                "spec": {"containers": [{"image": "localhost:5000/e2e/actor:1"}]},
            }},
        });
        self.apply(&service.to_string());
        self.ready("actor");
        self.host("actor")
    }

    /// Runs a Pod once and returns what its container, called `main`, says until it ends.
    ///
    /// # Panics
    /// When it does not end.
    pub fn run_pod(&self, name: &str, container: Value) -> String {
        self.run_pod_within(PATIENCE, name, container)
    }

    /// As [`run_pod`](Self::run_pod), for one that takes its time.
    ///
    /// # Panics
    /// When it does not end within `patience`.
    pub fn run_pod_within(&self, patience: Duration, name: &str, container: Value) -> String {
        self.run_pod_with(patience, name, json!({}), container)
    }

    /// As [`run_pod_within`](Self::run_pod_within), for a pod of which `spec` says more than its container.
    ///
    /// # Panics
    /// When it does not end within `patience`.
    pub fn run_pod_with(&self, patience: Duration, name: &str, mut spec: Value, mut container: Value) -> String {
        container["name"] = "main".into();
        spec["restartPolicy"] = "Never".into();
        spec["containers"] = json!([container]);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        self.apply(&pod.to_string());
        until_within(patience, &format!("pod {name} ends"), || {
            let phase = self.object("pods", name)["status"]["phase"].clone();
            (phase == "Succeeded" || phase == "Failed").then_some(())
        });
        self.kubectl(&["logs", name])
    }

    /// Waits until a Knative Service is ready for its present generation.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn ready(&self, service: &str) -> Value {
        self.service(service, "is ready", |service| condition(service, "Ready")["status"] == "True")
    }

    /// Waits until a Knative Service's present generation was seen and it is `right`.
    ///
    /// # Panics
    /// When it does not become so.
    pub fn service(&self, name: &str, what: &str, right: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let look = || {
            let service = self.object("ksvc", name);
            last = service["status"].clone();
            let seen = service["status"]["observedGeneration"] == service["metadata"]["generation"];
            (seen && !service.is_null() && right(&service)).then_some(service)
        };
        let found = found_within(PATIENCE, look);
        found.unwrap_or_else(|| panic!("waited in vain until service {name} {what}; its status: {last:#}"))
    }

    /// The public host of a Knative Service.
    ///
    /// # Panics
    /// When it has no URL.
    pub fn host(&self, service: &str) -> String {
        host_of(self.object("ksvc", service)["status"]["url"].as_str().expect("a service that is ready has a URL"))
    }

    /// Asks a Knative Service at its public host.
    ///
    /// # Panics
    /// When the gateway does not answer.
    pub fn ask(&self, service: &str) -> Answer {
        self.ask_for(service, "/")
    }

    /// Asks a Knative Service for a path at its public host.
    ///
    /// # Panics
    /// When the gateway does not answer.
    pub fn ask_for(&self, service: &str, path: &str) -> Answer {
        get(&self.cluster.gateway, &self.host(service), path).expect("the gateway answers")
    }
}

/// Path of one of the project's examples.
pub fn example(file: &str) -> String {
    // Cargo runs tests in the directory of their crate. One that is baked in may be another checkout's.
    format!("../../examples/{file}")
}

/// Host of a URL, without port.
pub fn host_of(url: &str) -> String {
    let rest = url.split("//").last().unwrap_or_default();
    rest.split(['/', ':']).next().unwrap_or_default().to_owned()
}

/// A condition of an object; `Null` when it is not there.
pub fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The test's own failure is the one to see.
        self.cluster.try_kubectl(&["delete", "namespace", &self.name, "--wait=false"], "");
    }
}
