//! One pod's life across panics of its worker.
//!
//! A worker that panics is begun anew from what the disk and the monitor know, as after a restart of the server. One
//! that panics again and again is left alone for a while: its pod is in *quarantine*. Its containers go on, nothing
//! new happens to it, and its status says so; it is tried again when its specification changes, when it is to go, and
//! after a while. A pod that must go and whose worker still panics is taken away without a worker.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use knoll_container::protocol::{Listing, SandboxId};
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::{End, PodVersion, adopt, load_record, uid};
use knoll_faults::{catch, caught};

use crate::api::pod_path;
use crate::config::InstanceEvent;
use crate::eviction;
use crate::panics::{self, PanicRecord, Sentence};
use crate::pod::{self, EndReason, ObservedPod};
use crate::security;
use crate::shared::Shared;

/// Reason in the status of a pod in quarantine.
const QUARANTINED: &str = "Quarantined";

/// What a worker begins from.
pub(crate) enum Start {
    /// A pod that is new here.
    New,
    /// A pod that may run already: what was kept of it, and what the monitor had when it was asked.
    Known(Option<Box<ObservedPod>>, Arc<Listing>),
    /// A pod whose last worker panicked: both are asked for.
    Again,
}

impl Start {
    /// A pod that may run already.
    pub(crate) fn known(kept: Option<ObservedPod>, listing: &Arc<Listing>) -> Start {
        Start::Known(kept.map(Box::new), Arc::clone(listing))
    }
}

/// Lives a pod's life to its end, or to the end of the server.
pub(crate) async fn live(
    shared: Arc<Shared>,
    start: Start,
    mut versions: watch::Receiver<PodVersion>,
    sources_changed: Arc<Notify>,
) {
    let (mut start, mut record) = (start, PanicRecord::default());
    loop {
        let life = one_life(&shared, start, versions.clone(), Arc::clone(&sources_changed));
        let message = match caught(life).await {
            Ok(End::Over | End::Left) => return,
            Ok(End::Panicked(message)) | Err(message) => message,
        };
        start = Start::Again;
        let version = versions.borrow().clone();
        let sentence = record.panicked(shared.clock.now());
        tell(&shared, &version.pod, &message, sentence);
        let goes_on = match sentence {
            Sentence::Pause(pause) => rest(&mut versions, pause).await,
            Sentence::Quarantine(_) if is_going(&version) => {
                take_away(&shared, &version.pod).await;
                return;
            }
            Sentence::Quarantine(pause) => {
                caught(quarantine(&shared, &version.pod, &message)).await.unwrap_or_else(|why| {
                    tracing::error!(pod = pod::describe(&version.pod), why, "a quarantine cannot be told");
                });
                lie_low(&mut versions, &version.pod, pause).await
            }
        };
        if !goes_on {
            return;
        }
    }
}

async fn one_life(
    shared: &Arc<Shared>,
    start: Start,
    versions: watch::Receiver<PodVersion>,
    sources_changed: Arc<Notify>,
) -> End {
    let version = versions.borrow().clone();
    let Some(mut seen) = first_view(shared, start, &version.pod, &versions).await else { return End::Left };
    if pod::has_ended(&version.pod) && seen.containers.is_empty() && seen.verdict.is_none() {
        // It ended before this node knew it: there is nothing to be done, except to let it go.
        seen.verdict = Some(verdict_of(&version.pod));
    }
    if seen.verdict.is_none() && !is_going(&version) {
        let untouched = || if seen.is_untouched() { rejection(shared, &version.pod) } else { None };
        // For another system none runs on, either.
        if let Some((reason, message)) = foreign(&version.pod).or_else(untouched) {
            shared.recorder.warning(&version.pod, None, reason, &message);
            seen.verdict = Some(EndReason { reason: reason.into(), message });
        }
    }
    if !seen.is_untouched() {
        shared.room.hold(uid(&version.pod), &version.pod);
    }
    super::run(Arc::clone(shared), seen, versions, sources_changed).await
}

/// What is known of a pod when its worker begins; `None` when the server stops before that is known.
async fn first_view(
    shared: &Arc<Shared>,
    start: Start,
    pod: &Arc<Pod>,
    versions: &watch::Receiver<PodVersion>,
) -> Option<ObservedPod> {
    let (kept, listing) = match start {
        Start::New => return Some(ObservedPod::default()),
        Start::Known(kept, listing) => (kept.map(|kept| *kept), listing),
        Start::Again => {
            let mut pauses = panics::pauses();
            let listing = loop {
                match shared.monitor.get().list().await {
                    Ok(listing) => break Arc::new(listing),
                    Err(error) => tracing::warn!(%error, "the monitor does not say what runs"),
                }
                if !rest(&mut versions.clone(), pauses.after(Duration::ZERO)).await {
                    return None;
                }
            };
            let (shared, pod) = (Arc::clone(shared), Arc::clone(pod));
            let kept = tokio::task::spawn_blocking(move || load_record(&shared.config, uid(&pod))).await;
            (kept.ok().flatten().map(|record| record.seen), listing)
        }
    };
    Some(adopt(pod, kept, &listing, &shared.config, shared.clock.now()))
}

/// Why a pod is not for this node, whatever it asks for. One that says nothing is for whichever node it is given to.
fn foreign(pod: &Pod) -> Option<(&'static str, String)> {
    let os = pod.spec.as_ref()?.os.as_ref()?.name.as_str();
    let message =
        || format!("Failed to admit pod as the OS field doesn't match node OS: it is for {os}, this is linux");
    (!matches!(os, "" | "linux")).then(|| ("PodOSNotSupported", message()))
}

/// Why a pod is not taken at all, as a kubelet says it: trying again would not help.
fn rejection(shared: &Shared, pod: &Pod) -> Option<(&'static str, String)> {
    if let Err(error) = security::sysctls(pod) {
        return Some(("SysctlForbidden", format!("Pod was rejected: {error}")));
    }
    let pressure = *shared.pressure.borrow();
    match eviction::keeps_away(pressure, pod) {
        Some(message) => Some(("Evicted", message)),
        None => shared.room.take(uid(pod), pod).err(),
    }
}

/// How a pod ended that ended before this node could see it.
fn verdict_of(pod: &Pod) -> EndReason {
    let status = pod.status.as_ref();
    EndReason {
        reason: status.and_then(|s| s.reason.clone()).unwrap_or_default(),
        message: status.and_then(|s| s.message.clone()).unwrap_or_default(),
    }
}

fn is_going(version: &PodVersion) -> bool {
    version.gone || version.pod.metadata.deletion_timestamp.is_some()
}

fn tell(shared: &Shared, pod: &Pod, message: &str, sentence: Sentence) {
    let panics = shared.counters.panics.add();
    let what_next = match sentence {
        Sentence::Pause(pause) => format!("it is taken up again in {pause:?}"),
        Sentence::Quarantine(pause) => {
            shared.counters.quarantined.add();
            format!("it happened again and again: the pod is left alone for {pause:?}")
        }
    };
    tracing::error!(pod = pod::describe(pod), message, panics, what_next, "the worker of a pod panicked");
    let text =
        format!("This is a fault of the node, please report it: handling the pod panicked ({message}); {what_next}");
    shared.recorder.warning(pod, None, "NodePanic", text);
}

/// Waits; `false` when the server stops meanwhile.
async fn rest(versions: &mut watch::Receiver<PodVersion>, pause: Duration) -> bool {
    let stopped = async { while versions.changed().await.is_ok() {} };
    tokio::time::timeout(pause, stopped).await.is_err()
}

/// Waits until a quarantine is over: by time, or because the pod is another one or is to go. `false` when the server
/// stops meanwhile.
async fn lie_low(versions: &mut watch::Receiver<PodVersion>, pod: &Pod, pause: Duration) -> bool {
    let generation = pod.metadata.generation;
    let is_news = |version: &PodVersion| is_going(version) || version.pod.metadata.generation != generation;
    match tokio::time::timeout(pause, versions.wait_for(is_news)).await {
        Ok(news) => news.is_ok(),
        Err(_) => true,
    }
}

/// Says in the status that nobody looks after the pod, and that it takes no requests.
async fn quarantine(shared: &Shared, pod: &Arc<Pod>, message: &str) {
    let address = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
    if let Some(address) = address {
        let event = InstanceEvent { pod: Arc::clone(pod), address, up: false };
        if let Err(why) = catch(|| (shared.callbacks.on_instance)(event)) {
            tracing::error!(pod = pod::describe(pod), why, "an instance in quarantine was not taken down");
        }
    }
    let text = format!("The node cannot handle this pod and leaves it alone: {message}");
    let conditions = unready(pod.status.as_ref(), &text, shared.clock.now());
    let status = json!({"metadata": {"uid": pod.metadata.uid},
        "status": {"reason": QUARANTINED, "message": text, "conditions": conditions}});
    if let Err(error) = shared.api.merge(&format!("{}/status", pod_path(pod)), &status).await {
        tracing::warn!(pod = pod::describe(pod), %error, "a quarantine was not written down");
    }
}

/// The conditions with those about readiness turned off.
fn unready(status: Option<&PodStatus>, text: &str, now: Timestamp) -> Vec<PodCondition> {
    const READINESS: [&str; 2] = ["Ready", "ContainersReady"];
    let before = status.and_then(|s| s.conditions.clone()).unwrap_or_default();
    let others = before.iter().filter(|c| !READINESS.contains(&c.type_.as_str())).cloned();
    let off = READINESS.map(|kind| PodCondition {
        type_: kind.to_owned(),
        status: "False".into(),
        reason: Some(QUARANTINED.into()),
        message: Some(text.to_owned()),
        last_transition_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now)),
        ..PodCondition::default()
    });
    others.chain(off).collect()
}

/// Takes a pod away that has no worker: containers, files, and its object where there is one still.
async fn take_away(shared: &Arc<Shared>, pod: &Pod) {
    let mut pauses = panics::pauses();
    loop {
        let outcome = async {
            let id = SandboxId::new(uid(pod)).map_err(|error| error.to_string())?;
            shared.monitor.get().remove_sandbox(id).await.map_err(|error| error.to_string())?;
            super::remove_files(shared, uid(pod)).await?;
            shared.api.forget(pod).await.map_err(|error| error.to_string())
        };
        match caught(outcome).await.unwrap_or_else(Err) {
            Ok(()) => return,
            Err(error) => tracing::warn!(pod = pod::describe(pod), error, "a pod in quarantine cannot be taken away"),
        }
        tokio::time::sleep(pauses.after(Duration::ZERO)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_for_another_operating_system_is_not_taken() {
        let of = |spec: serde_json::Value| {
            foreign(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod")).map(|(why, _)| why)
        };
        assert_eq!(of(json!({"containers": [], "os": {"name": "windows"}})), Some("PodOSNotSupported"));
        assert_eq!(of(json!({"containers": [], "os": {"name": "linux"}})), None);
        assert_eq!(of(json!({"containers": []})), None);
    }
}
