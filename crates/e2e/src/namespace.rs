//! A namespace of a test's own.

use std::{
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

use crate::{Answer, Cluster, get, until};

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
        let cluster = Cluster::from_environment();
        let name = format!("{prefix}-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        cluster.kubectl(&["create", "namespace", &name]);
        Self { cluster, name }
    }

    /// Runs `kubectl` in it.
    ///
    /// # Panics
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let mut words = vec!["-n", &self.name];
        words.extend(arguments);
        self.cluster.kubectl(&words)
    }

    /// An object of it as JSON; `Null` when there is none.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut words = vec!["-n", &self.name, "get"];
        words.extend(arguments);
        self.cluster.json(&words)
    }

    /// Applies YAML in it.
    ///
    /// # Panics
    /// When it is refused.
    pub fn apply(&self, yaml: &str) -> String {
        self.cluster.kubectl_with(&["-n", &self.name, "apply", "-f", "-"], yaml)
    }

    /// Waits until a Knative Service is ready for its present generation.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn ready(&self, service: &str) -> Value {
        until(&format!("service {service} is ready"), || {
            let service = self.json(&["ksvc", service]);
            let ready = condition(&service, "Ready") == "True"
                && service["status"]["observedGeneration"] == service["metadata"]["generation"];
            ready.then_some(service)
        })
    }

    /// The public host of a Knative Service.
    ///
    /// # Panics
    /// When it has no URL.
    pub fn host(&self, service: &str) -> String {
        host_of(self.json(&["ksvc", service])["status"]["url"].as_str().expect("a service that is ready has a URL"))
    }

    /// Asks a Knative Service at its public host.
    ///
    /// # Panics
    /// When the gateway does not answer.
    pub fn ask(&self, service: &str) -> Answer {
        get(&self.cluster.gateway, &self.host(service), "/").expect("the gateway answers")
    }
}

/// Host of a URL, without port.
fn host_of(url: &str) -> String {
    let rest = url.split("//").last().unwrap_or_default();
    rest.split(['/', ':']).next().unwrap_or_default().to_owned()
}

/// The status of a condition; empty when it is not there.
fn condition(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default().to_owned()
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The test's own failure is the one to see.
        self.cluster.try_kubectl(&["delete", "namespace", &self.name, "--wait=false"], "");
    }
}
