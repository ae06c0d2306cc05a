//! Kubernetes Events, told at a sane rate.
//!
//! The same thing about the same pod raises a count instead of making another event, and a pod that has much to say
//! is heard less often. When more wait than [`QUEUE`], new ones are dropped and the number is logged: events are a
//! courtesy, containers come first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::sync::mpsc;

use crate::api::Api;

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
    dropped: std::sync::Arc<AtomicU64>,
}

impl Recorder {
    /// A recorder, and what it does as long as it is polled.
    pub(crate) fn new(api: Api, node: String) -> (Recorder, impl Future<Output = ()> + Send) {
        let (queue, notes) = mpsc::channel(QUEUE);
        (Recorder { queue, dropped: std::sync::Arc::default() }, run(api, node, notes))
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
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
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

async fn run(api: Api, node: String, mut notes: mpsc::Receiver<Note>) {
    let mut written: HashMap<(String, &'static str, String, Option<String>), Written> = HashMap::new();
    let mut budgets: HashMap<String, (f64, Instant)> = HashMap::new();
    while let Some(note) = notes.recv().await {
        let now = Instant::now();
        if !spend(&mut budgets, &note.uid, now) {
            continue;
        }
        if written.len() >= REMEMBERED {
            written.retain(|_, w| now.duration_since(w.at) < MEMORY);
            budgets.retain(|_, (left, at)| *left + gained(now.duration_since(*at)) < BURST);
            if written.len() >= REMEMBERED {
                written.clear();
            }
        }
        let key = (note.uid.clone(), note.reason, note.message.clone(), note.field.clone());
        let known = written.get_mut(&key).filter(|w| now.duration_since(w.at) < MEMORY);
        let outcome = match known {
            Some(before) => {
                before.count += 1;
                before.at = now;
                again(&api, &note, before).await
            }
            None => match first(&api, &node, &note).await {
                Ok(name) => {
                    written.insert(key, Written { name, count: 1, at: now });
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, reason = note.reason, pod = note.pod, "an event was not recorded");
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
