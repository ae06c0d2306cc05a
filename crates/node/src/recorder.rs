//! Kubernetes Events, told at a sane rate.
//!
//! The same thing about the same pod raises a count instead of making another event, and a pod that has much to say
//! is heard less often. When more wait than [`QUEUE`], new ones are dropped and the number is logged: events are a
//! courtesy, containers come first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::sync::mpsc;

use crate::api::Api;
use crate::counters::Counters;

/// Events that may wait.
const QUEUE: usize = 1024;
/// Events that one pod may have at once, and how often it gets one more.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// Things remembered to be counted, and for how long.
const REMEMBERED: usize = 4096;
const MEMORY: Duration = Duration::from_secs(600);

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    namespace: String,
    pod: String,
    uid: String,
    version: String,
    field: Option<String>,
    warning: bool,
    reason: &'static str,
    message: String,
}

/// Tells events about pods. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Note>,
    counters: Arc<Counters>,
}

/// Writes what is told.
pub(crate) struct Recording {
    api: Api,
    node: String,
    notes: mpsc::Receiver<Note>,
    counters: Arc<Counters>,
    written: HashMap<Topic, Written>,
    budgets: HashMap<String, (f64, Instant)>,
}

/// What an event is about: uid, reason, message and field. The same topic again raises a count.
type Topic = (String, &'static str, String, Option<String>);

impl Recorder {
    /// A recorder, and what writes for it.
    pub(crate) fn new(api: Api, node: String, counters: Arc<Counters>) -> (Recorder, Recording) {
        let (queue, notes) = mpsc::channel(QUEUE);
        let (written, budgets) = (HashMap::new(), HashMap::new());
        let recording = Recording { api, node, notes, counters: Arc::clone(&counters), written, budgets };
        (Recorder { queue, counters }, recording)
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
        let field = container
            .map(|name| format!("spec.{}{{{name}}}", if is_init(name) { "initContainers" } else { "containers" }));
        let note = Note {
            namespace: meta.namespace.clone().unwrap_or_default(),
            pod: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
            field,
            warning,
            reason,
            message,
        };
        if self.queue.try_send(note).is_err() {
            let dropped = self.counters.events_dropped.add();
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "too many events about pods: some are not recorded");
            }
        }
    }
}

/// An event that was written.
struct Written {
    name: String,
    count: u32,
    at: Instant,
}

impl Recording {
    /// Writes for as long as somebody may tell something. May be begun again after a panic: the note that caused it is
    /// lost, all others are written.
    pub(crate) async fn run(&mut self) {
        while let Some(note) = self.notes.recv().await {
            if !spend(&mut self.budgets, &note.uid, Instant::now()) {
                self.counters.events_throttled.add();
            } else if let Err(error) = self.record(&note).await {
                tracing::debug!(%error, reason = note.reason, pod = note.pod, "an event was not recorded");
            }
        }
    }

    async fn record(&mut self, note: &Note) -> kube::Result<()> {
        let now = Instant::now();
        self.forget_old(now);
        let topic = (note.uid.clone(), note.reason, note.message.clone(), note.field.clone());
        if let Some(before) = self.written.get_mut(&topic).filter(|w| now.duration_since(w.at) < MEMORY) {
            before.count = before.count.saturating_add(1);
            before.at = now;
            return again(&self.api, note, before).await;
        }
        let name = first(&self.api, &self.node, note).await?;
        self.written.insert(topic, Written { name, count: 1, at: now });
        Ok(())
    }

    fn forget_old(&mut self, now: Instant) {
        if self.budgets.len() >= REMEMBERED {
            self.budgets.retain(|_, (left, at)| *left + gained(now.duration_since(*at)) < BURST);
        }
        if self.written.len() >= REMEMBERED {
            self.written.retain(|_, w| now.duration_since(w.at) < MEMORY);
            if self.written.len() >= REMEMBERED {
                self.written.clear();
            }
        }
    }
}

fn gained(since: Duration) -> f64 {
    since.as_secs_f64() / REFILL.as_secs_f64()
}

/// Takes one from a pod's budget, if there is one.
fn spend(budgets: &mut HashMap<String, (f64, Instant)>, uid: &str, now: Instant) -> bool {
    let (left, at) = budgets.entry(uid.to_owned()).or_insert((BURST, now));
    *left = (*left + gained(now.duration_since(*at))).min(BURST);
    *at = now;
    let enough = *left >= 1.0;
    if enough {
        *left -= 1.0;
    }
    enough
}

async fn first(api: &Api, node: &str, note: &Note) -> kube::Result<String> {
    let now = Timestamp::now();
    let stamp = jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", now).unwrap_or_default();
    let name = format!("{}.{:x}", note.pod, now.as_nanosecond());
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": note.namespace},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": note.namespace, "name": note.pod,
            "uid": note.uid, "resourceVersion": note.version, "fieldPath": note.field},
        "reason": note.reason, "message": note.message, "type": if note.warning { "Warning" } else { "Normal" },
        "source": {"component": "kubelet", "host": node}, "reportingComponent": "kubelet", "reportingInstance": node,
        "firstTimestamp": stamp, "lastTimestamp": stamp, "count": 1,
    });
    api.create(&format!("/api/v1/namespaces/{}/events", note.namespace), &event).await?;
    Ok(name)
}

async fn again(api: &Api, note: &Note, before: &Written) -> kube::Result<()> {
    let stamp = jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", Timestamp::now()).unwrap_or_default();
    let path = format!("/api/v1/namespaces/{}/events/{}", note.namespace, before.name);
    api.merge(&path, &json!({"count": before.count, "lastTimestamp": stamp, "message": note.message})).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_talks_much_is_heard_less() {
        let mut budgets = HashMap::new();
        let now = Instant::now();
        let heard = (0..100).filter(|_| spend(&mut budgets, "u", now)).count();
        assert_eq!(heard, 25);
        assert!(spend(&mut budgets, "other", now));
        assert!(!spend(&mut budgets, "u", now + Duration::from_secs(100)));
        assert!(spend(&mut budgets, "u", now + Duration::from_secs(301)));
    }
}
