//! Which pod goes when the machine runs short of something, and how it is told.

use std::sync::{Arc, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use knoll_container::protocol::SandboxId;

use crate::agent::Node;
use crate::pod::{self, EndReason};
use crate::pressure::{CRITICAL, Candidate, Pressure, first_to_go};
use crate::resources::QosClass;
use crate::shared::Shared;
use crate::worker::uid;
use crate::{disk, resources};

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scarce {
    Disk,
    Memory,
}

impl Scarce {
    /// Its name among the resources of containers.
    fn resource(self) -> &'static str {
        match self {
            Scarce::Disk => disk::RESOURCE,
            Scarce::Memory => "memory",
        }
    }

    /// Bytes of it that a pod uses; `None` when that is none. A disk that cannot be measured is more than any other's:
    /// what a pod builds must not keep it here.
    async fn used(self, shared: &Shared, pod: &Arc<Pod>) -> Option<u64> {
        match self {
            Scarce::Disk => Some(disk::measure(shared, pod).await.map_or(u64::MAX, |used| used.total)),
            Scarce::Memory => {
                let sandbox = SandboxId::new(uid(pod)).ok()?;
                // A pod that has no sandbox uses none.
                shared.monitor.get().stats(sandbox).await.ok().map(|stats| stats.total.working_set_bytes)
            }
        }
    }
}

/// Evicts the pod that should go first, if one may. The others wait for the next look: one may be enough.
pub(crate) async fn evict_one(node: &Node, of: Scarce) {
    let pods: Vec<Arc<Pod>> = node.pods.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    let going = node.shared.evictions.borrow().clone();
    let mut candidates = Vec::new();
    for pod in pods.iter().filter(|pod| is_live(pod) && !going.contains_key(uid(pod))) {
        let Some(used) = of.used(&node.shared, pod).await else { continue };
        candidates.push(Candidate {
            uid: uid(pod).to_owned(),
            priority: pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0),
            used,
            requested: requested(pod, of.resource()),
        });
    }
    let resource = of.resource();
    let Some(victim) = first_to_go(candidates) else {
        tracing::warn!(resource, "the machine is short of it, and no pod can go");
        return;
    };
    tracing::warn!(uid = victim.uid, used = victim.used, resource, "the machine is short of it: a pod is evicted");
    let verdict = EndReason { reason: "Evicted".into(), message: told(resource, &victim) };
    node.shared.evictions.send_modify(|evictions| {
        let here = node.pods.lock().unwrap_or_else(PoisonError::into_inner);
        evictions.retain(|uid, _| here.contains_key(uid));
        evictions.insert(victim.uid, verdict);
    });
}

/// Why a new pod is not taken while the machine is short of something, as a kubelet says it: it may have named this node
/// itself, whatever the node says of new pods. Who is short of memory alone takes pods that say how much they need.
pub(crate) fn keeps_away(short: Pressure, pod: &Pod) -> Option<String> {
    let is_critical = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0) >= CRITICAL;
    let memory_alone = short.memory && !short.disk && !short.pids;
    let may_come = memory_alone && resources::qos_class(pod) != QosClass::BestEffort;
    let told = [("DiskPressure", short.disk), ("MemoryPressure", short.memory), ("PIDPressure", short.pids)];
    let told: Vec<&str> = told.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
    (!told.is_empty() && !is_critical && !may_come).then(|| format!("The node had condition: [{}]. ", told.join(" ")))
}

fn told(resource: &str, victim: &Candidate) -> String {
    let used = match victim.used {
        u64::MAX => "more than can be measured".to_owned(),
        bytes => format!("{} KiB", bytes / 1024),
    };
    let requested = victim.requested / 1024;
    format!("The node was low on resource: {resource}. The pod was using {used}, request is {requested} KiB. ")
}

fn is_live(pod: &Pod) -> bool {
    !pod::has_ended(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// What the containers that run side by side ask for together, in bytes.
fn requested(pod: &Pod, resource: &str) -> u64 {
    let each = pod.spec.iter().flat_map(|s| &s.containers).filter_map(|container| {
        let requests = container.resources.as_ref()?.requests.as_ref();
        u64::try_from(resources::read(requests, resource).ok()??.units()).ok()
    });
    each.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_asks_for_what_its_containers_ask_for_together() {
        let asks = |memory: &str| json!({"resources": {"requests": {"memory": memory, "ephemeral-storage": "1Gi"}}});
        let pod = json!({"spec": {"containers": [asks("1Mi"), asks("2Mi"), {"name": "c"}]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        assert_eq!(requested(&pod, Scarce::Memory.resource()), 3 << 20);
        assert_eq!(requested(&pod, Scarce::Disk.resource()), 2 << 30);
    }

    #[test]
    fn a_machine_that_is_short_of_something_takes_no_new_pods_but_those_it_cannot_do_without() {
        let pod = |priority: i32, memory: &str| -> Pod {
            let resources = json!({"requests": {"memory": memory}});
            let spec = json!({"priority": priority, "containers": [{"name": "c", "resources": resources}]});
            serde_json::from_value(json!({"spec": spec})).expect("a pod")
        };
        let (disk, memory) =
            (Pressure { disk: true, ..Pressure::default() }, Pressure { memory: true, ..Pressure::default() });
        let told = |short, priority, memory| keeps_away(short, &pod(priority, memory));
        assert_eq!(told(Pressure::default(), 0, "0"), None);
        assert_eq!(told(disk, 0, "1Mi").as_deref(), Some("The node had condition: [DiskPressure]. "));
        assert_eq!(told(disk, CRITICAL, "0"), None);
        assert_eq!(told(memory, 0, "0").as_deref(), Some("The node had condition: [MemoryPressure]. "));
        assert_eq!(told(memory, 0, "1Mi"), None);
    }

    #[test]
    fn a_pod_that_has_ended_or_goes_already_is_none_to_evict() {
        let pod = |value| serde_json::from_value::<Pod>(value).expect("a pod");
        assert!(is_live(&pod(json!({"status": {"phase": "Running"}}))));
        assert!(!is_live(&pod(json!({"status": {"phase": "Failed"}}))));
        assert!(!is_live(&pod(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))));
    }
}
