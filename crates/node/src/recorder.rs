//! Kubernetes Events about pods: a courtesy, containers come first.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
pub(crate) use knoll_client::recorder::Recording;
use knoll_client::recorder::{Event, Outcome, Source};
use knoll_client::rush::Rush;

use crate::api::Api;
use crate::counters::Counters;

/// Tells events about pods. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder(knoll_client::recorder::Recorder);

impl Recorder {
    /// A recorder, and what writes for it.
    pub(crate) fn new(api: Api, node: String, rush: Rush, counters: Arc<Counters>) -> (Recorder, Recording) {
        let tally = move |outcome| match outcome {
            Outcome::Recorded => {}
            Outcome::Throttled => drop(counters.events_throttled.add()),
            Outcome::Dropped => {
                let dropped = counters.events_dropped.add();
                if dropped.is_power_of_two() {
                    tracing::warn!(dropped, "some events about pods are not recorded: too many, or refused");
                }
            }
        };
        let source = Source { component: "kubelet", host: node };
        let (recorder, recording) = knoll_client::recorder::Recorder::new(api.0, source, rush, Arc::new(tally));
        (Recorder(recorder), recording)
    }

    /// Tells that something went as it should.
    pub(crate) fn normal(&self, pod: &Pod, container: Option<&str>, reason: &'static str, message: impl Into<String>) {
        self.tell(pod, container, false, reason, message.into());
    }

    /// Tells that something did not.
    pub(crate) fn warning(&self, pod: &Pod, container: Option<&str>, reason: &'static str, message: impl Into<String>) {
        self.tell(pod, container, true, reason, message.into());
    }

    fn tell(&self, pod: &Pod, container: Option<&str>, warning: bool, reason: &'static str, message: String) {
        let meta = &pod.metadata;
        let is_init =
            |name: &str| pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).any(|c| c.name == name);
        let field_path = container
            .map(|name| format!("spec.{}{{{name}}}", if is_init(name) { "initContainers" } else { "containers" }));
        self.0.record(Event {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            field_path,
            warning,
            reason: reason.to_owned(),
            message,
        });
    }
}
