//! Writes down what became of a pod: its record beside the sandbox, its status in the API.
//!
//! Both lag behind the pod on purpose: nothing that happens to a pod waits for them, what changes again at once is
//! written once, and they let pass what requests wait for.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::uid;
use crate::api::pod_path;
use crate::config::Config;
use crate::pod::{NodeFacts, ObservedPod, status};
use crate::shared::Shared;

/// How long a status that is not urgent waits for the next.
const PATIENCE: Duration = Duration::from_millis(25);
/// How long a status lets pass what requests wait for.
const LATE: Duration = Duration::from_secs(5);
/// Pauses after a failed write.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Tries when others change the pod at the same time.
const CONFLICTS: u32 = 5;
/// Fields of a status that the node answers for.
const OURS: [&str; 13] = [
    "phase",
    "conditions",
    "containerStatuses",
    "initContainerStatuses",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "qosClass",
    "startTime",
    "observedGeneration",
    "reason",
    "message",
];

/// A pod at one moment.
#[derive(Clone, PartialEq)]
pub(super) struct Snapshot {
    pub(super) pod: Arc<Pod>,
    pub(super) seen: ObservedPod,
    /// Differs when time alone may have changed the report.
    pub(super) turn: u64,
}

/// What is kept of a pod on disk.
#[derive(Serialize, Deserialize)]
pub(crate) struct PodRecord {
    /// As the API had it.
    pub(crate) pod: Pod,
    /// As this machine knew it.
    pub(crate) seen: ObservedPod,
}

impl PodRecord {
    /// As it is on disk: one line of JSON, and a checksum.
    fn encode(&self) -> std::io::Result<Vec<u8>> {
        Ok(knoll_journal::with_checksum(serde_json::to_vec(self).map_err(std::io::Error::other)?))
    }

    /// Reads one. One without a checksum is of an earlier version.
    pub(super) fn decode(bytes: &[u8]) -> std::io::Result<PodRecord> {
        serde_json::from_slice(knoll_journal::without_checksum(bytes)?).map_err(std::io::Error::other)
    }

    pub(crate) fn path(config: &Config, uid: &str) -> std::path::PathBuf {
        config.pod_dir(uid).join("record.json")
    }
}

pub(super) struct Scribe {
    snapshots: watch::Sender<Option<Snapshot>>,
    writer: Writer,
    task: JoinHandle<()>,
    /// Whether the end of the task was seen.
    ended: bool,
}

/// Writes a pod's status.
#[derive(Clone)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    written: Arc<Mutex<Written>>,
    latest: Arc<std::sync::Mutex<PodStatus>>,
}

/// What the API has, as far as we know.
struct Written {
    status: PodStatus,
    /// The pod's version then.
    version: Option<u64>,
}

impl Written {
    /// What the API has, given a version of the pod that was seen: what others wrote after us counts.
    fn known<'a>(&'a self, pod: &'a Pod) -> &'a PodStatus {
        let is_newer = version(pod.metadata.resource_version.as_deref()) > self.version;
        pod.status.as_ref().filter(|_| is_newer && self.version.is_some()).unwrap_or(&self.status)
    }
}

fn version(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

impl Scribe {
    pub(super) fn new(shared: Arc<Shared>, pod: &Pod) -> Scribe {
        let (snapshots, changes) = watch::channel(None);
        let known = pod.status.clone().unwrap_or_default();
        let writer = Writer {
            shared,
            written: Arc::new(Mutex::new(Written {
                status: known.clone(),
                version: version(pod.metadata.resource_version.as_deref()),
            })),
            latest: Arc::new(std::sync::Mutex::new(known)),
        };
        let task = tokio::spawn(run(writer.clone(), changes));
        Scribe { snapshots, writer, task, ended: false }
    }

    /// Has a snapshot written soon.
    pub(super) fn write(&self, snapshot: Snapshot) {
        self.snapshots.send_if_modified(|held| {
            let news = held.as_ref() != Some(&snapshot);
            if news {
                *held = Some(snapshot);
            }
            news
        });
    }

    pub(super) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// The status of a snapshot, with the pod it belongs to.
    pub(super) fn render(&self, snapshot: &Snapshot) -> (Arc<Pod>, PodStatus) {
        (Arc::clone(&snapshot.pod), self.writer.render(snapshot))
    }

    /// Keeps the last snapshot on disk, for the server that comes after this one.
    pub(super) async fn flush(&self, snapshot: Snapshot) {
        self.task.abort();
        save(&self.writer.shared.config, &snapshot).await;
    }

    /// Waits until writing panics; for ever, if it never does. Its message.
    pub(super) async fn panicked(&mut self) -> String {
        if !self.ended
            && let Err(error) = (&mut self.task).await
            && let Some(message) = crate::panics::of_task(error)
        {
            self.ended = true;
            return message;
        }
        self.ended = true;
        std::future::pending().await
    }

    /// Writes no more.
    pub(super) async fn stop(&mut self) {
        self.task.abort();
        // Being aborted is how it ends.
        if !std::mem::replace(&mut self.ended, true) {
            drop((&mut self.task).await);
        }
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(writer: Writer, mut changes: watch::Receiver<Option<Snapshot>>) {
    let mut pause = RETRY.0;
    let mut again = false;
    loop {
        if !again && changes.changed().await.is_err() {
            return;
        }
        if !is_gone(&changes) {
            writer.shared.callbacks.rush.pass(LATE).await;
        }
        let Some(mut snapshot) = changes.borrow_and_update().clone() else { continue };
        let mut status = writer.render(&snapshot);
        let patience = tokio::time::Instant::now() + PATIENCE;
        while !is_urgent(&status) && tokio::time::timeout_at(patience, changes.changed()).await.is_ok_and(|c| c.is_ok())
        {
            if let Some(newer) = changes.borrow_and_update().clone() {
                snapshot = newer;
                status = writer.render(&snapshot);
            }
        }
        let pod = Arc::clone(&snapshot.pod);
        let last = (pod, status);
        let (_, written) = tokio::join!(save(&writer.shared.config, &snapshot), writer.write_status(&last));
        again = !written && !snapshot.seen.gone;
        if again {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        } else {
            pause = RETRY.0;
        }
    }
}

/// Whether the pod is known to be going: its end does not wait for others.
fn is_gone(changes: &watch::Receiver<Option<Snapshot>>) -> bool {
    changes.borrow().as_ref().is_some_and(|s| s.seen.gone || s.pod.metadata.deletion_timestamp.is_some())
}

/// Whether others wait for this status.
fn is_urgent(status: &PodStatus) -> bool {
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    ended || ready
}

async fn save(config: &Config, snapshot: &Snapshot) {
    let path = PodRecord::path(config, uid(&snapshot.pod));
    let snapshot = snapshot.clone();
    let saved = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        let record = PodRecord { pod: Pod::clone(&snapshot.pod), seen: snapshot.seen };
        let bytes = record.encode()?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let next = path.with_extension("next");
        std::fs::write(&next, bytes)?;
        std::fs::rename(&next, &path)
    });
    match saved.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "a pod's record cannot be kept"),
        Err(error) => tracing::warn!(%error, "a pod's record was not kept"),
    }
}

impl Writer {
    fn render(&self, snapshot: &Snapshot) -> PodStatus {
        let facts = NodeFacts { host_ip: self.shared.config.address.to_string() };
        let mut latest = self.latest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let previous = with_conditions_of_others(&latest, snapshot.pod.status.as_ref());
        let status = status(&snapshot.pod, &snapshot.seen, &facts, Some(&previous), self.shared.clock.now());
        latest.clone_from(&status);
        status
    }

    /// Writes what differs from what the API has. Returns `false` when that has to be tried again.
    pub(super) async fn write_status(&self, (pod, status): &(Arc<Pod>, PodStatus)) -> bool {
        let mut written = self.written.lock().await;
        let Some(mut patch) = difference(written.known(pod), status) else { return true };
        let Ok(_slot) = self.shared.writes.acquire().await else { return true };
        let gated = pod.spec.as_ref().is_some_and(|s| s.readiness_gates.as_ref().is_some_and(|g| !g.is_empty()));
        let mut expected = pod.metadata.resource_version.clone().filter(|_| gated);
        let path = pod_path(pod);
        for _ in 0..CONFLICTS {
            let mut meta = json!({"uid": pod.metadata.uid});
            if let Some(expected) = &expected {
                meta["resourceVersion"] = expected.clone().into();
            }
            let body = json!({"metadata": meta, "status": patch});
            match self.shared.api.merge(&format!("{path}/status"), &body).await {
                Ok(now) => {
                    written.status.clone_from(status);
                    written.version = version(now.as_deref());
                    return true;
                }
                // The pod is gone: there is nothing to write to.
                Err(knoll_client::Error::Api(status)) if status.code == 404 => return true,
                Err(knoll_client::Error::Api(refusal)) if refusal.code == 409 => {
                    let now: Option<Pod> = self.shared.api.get(&path).await.ok().flatten();
                    let Some(now) = now.filter(|n| n.metadata.uid == pod.metadata.uid) else { return true };
                    if !gated {
                        continue;
                    }
                    expected.clone_from(&now.metadata.resource_version);
                    let merged = with_conditions_of_others(status, now.status.as_ref());
                    match difference(now.status.as_ref().unwrap_or(&PodStatus::default()), &merged) {
                        Some(newer) => patch = newer,
                        None => return true,
                    }
                }
                Err(error) => {
                    tracing::debug!(pod = path, %error, "a status was not written");
                    return false;
                }
            }
        }
        false
    }
}

/// `status` with the conditions that others set, as the API has them.
fn with_conditions_of_others(status: &PodStatus, api: Option<&PodStatus>) -> PodStatus {
    const OURS: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let mut out = status.clone();
    let Some(api) = api.and_then(|s| s.conditions.as_ref()) else { return out };
    let conditions = out.conditions.get_or_insert_default();
    conditions.retain(|c| OURS.contains(&c.type_.as_str()));
    conditions.extend(api.iter().filter(|c| !OURS.contains(&c.type_.as_str())).cloned());
    out
}

/// The fields of `new` that differ from `old`, those that vanished as null; `None` when none does.
fn difference(old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let fields = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (old, new) = (fields(old), fields(new));
    let mut patch = Map::new();
    for field in OURS {
        match (old.get(field), new.get(field)) {
            (before, Some(now)) if before != Some(now) => drop(patch.insert(field.to_owned(), now.clone())),
            (Some(_), None) => drop(patch.insert(field.to_owned(), Value::Null)),
            _ => {}
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: Value) -> PodStatus {
        serde_json::from_value(json).expect("a status")
    }

    #[test]
    fn a_changed_byte_in_a_record_is_found_and_one_without_a_checksum_is_read() {
        let mut record = PodRecord { pod: Pod::default(), seen: ObservedPod::default() };
        record.seen.container_mut("a").restarts = 7;
        let bytes = record.encode().expect("is written");
        assert_eq!(PodRecord::decode(&bytes).expect("is read").seen, record.seen);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(PodRecord::decode(&damaged).is_err(), "byte {at}");
        }
        let old = serde_json::to_vec(&record).expect("is written");
        assert_eq!(PodRecord::decode(&old).expect("is read").seen, record.seen);
    }

    #[test]
    fn only_what_differs_is_written() {
        let old = status(json!({"phase": "Pending", "podIP": "10.244.0.5", "reason": "x", "resize": "kept"}));
        let new = status(json!({"phase": "Running", "podIP": "10.244.0.5"}));
        assert_eq!(difference(&old, &new), Some(json!({"phase": "Running", "reason": null})));
        assert_eq!(difference(&new, &new), None);
    }

    #[test]
    fn what_others_wrote_after_us_is_what_the_api_has() {
        let written = Written { status: status(json!({"phase": "Running"})), version: Some(9) };
        let pod = |version: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"resourceVersion": version}, "status": {"phase": "Pending"}}))
                .expect("a pod")
        };
        assert_eq!(written.known(&pod("10")).phase.as_deref(), Some("Pending"));
        assert_eq!(written.known(&pod("9")).phase.as_deref(), Some("Running"), "it is our own");
        assert_eq!(written.known(&pod("8")).phase.as_deref(), Some("Running"), "it is older than ours");
        assert_eq!(written.known(&pod("x")).phase.as_deref(), Some("Running"));
    }

    #[test]
    fn conditions_of_others_are_kept_as_the_api_has_them() {
        let ours =
            status(json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "x/y", "status": "False"}]}));
        let api =
            status(json!({"conditions": [{"type": "Ready", "status": "False"}, {"type": "x/y", "status": "True"}]}));
        let merged = with_conditions_of_others(&ours, Some(&api)).conditions.expect("conditions");
        let seen: Vec<_> = merged.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        assert_eq!(seen, [("Ready", "True"), ("x/y", "True")]);
    }
}
