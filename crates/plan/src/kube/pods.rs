//! What the controllers ask of a pod.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use knoll_api::{
    Resource, Timestamp, clock,
    k8s_openapi::api::core::v1::{Pod, PodCondition},
};

use super::selector;
use crate::World;

/// The pods of a namespace that a Service's plain selector picks, in order: those that carry one of its labels are
/// looked at, not the namespace.
pub(super) fn picked(world: &World, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<Arc<Pod>> {
    let Some((label, value)) = selector.last_key_value() else { return Vec::new() };
    let mut found = world.pods.labelled(namespace, label, value);
    found.retain(|pod| selector::picks_pod(selector, pod));
    found
}

/// Phase; `Pending` until the node says otherwise.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether its containers ended for good.
pub(super) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it counts as a replica: neither finished nor going away.
pub(super) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !pod.is_deleting()
}

/// Name of the node it is bound to.
pub(super) fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

/// One of its conditions.
pub(super) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// Whether it takes requests.
pub(super) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// How long until a ready pod has been ready for `min_ready`; zero when it has, `None` when it is not ready.
pub(super) fn until_available(pod: &Pod, min_ready: Duration, now: Timestamp) -> Option<Duration> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    if min_ready.is_zero() {
        return Some(Duration::ZERO);
    }
    let since = ready.last_transition_time.as_ref().map_or(now, |time| time.0);
    Some(min_ready.saturating_sub(clock::elapsed(since, now)))
}

/// Order in which pods go: unbound, not running, not ready, cheap, shortly ready, often restarted, young.
pub(super) fn usefulness(pod: &Pod) -> impl Ord + use<> {
    let running = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = pod.annotation("controller.kubernetes.io/pod-deletion-cost");
    let cost = cost.and_then(|cost| cost.parse::<i32>().ok()).unwrap_or_default();
    let ready_since = condition(pod, "Ready").filter(|ready| ready.status == "True");
    let ready_since = ready_since.and_then(|ready| ready.last_transition_time.as_ref()).map(|time| Reverse(time.0));
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let restarts = statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or_default();
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| Reverse(time.0));
    (node(pod).is_some(), running, is_ready(pod), cost, ready_since, Reverse(restarts), created, pod.name().to_owned())
}

/// `now` as the API stores times: whole seconds.
pub(super) fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
