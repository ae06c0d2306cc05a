//! Whether there is room for a pod that was given to this node, as a kubelet asks before it takes one.
//!
//! The scheduler asks the same, but a pod may name its node itself. What a pod takes it has from when it is taken until
//! nothing of it runs again, which is never longer than the scheduler counts it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Container, Pod};
use knoll_api::quantity::Quantity;

use crate::disk;
use crate::env::Allocatable;
use crate::resources::{self, is_sidecar};

/// What counts, with the reason that a pod is told.
const RESOURCES: [(&str, &str); 3] =
    [("cpu", "OutOfcpu"), ("memory", "OutOfmemory"), (disk::RESOURCE, "OutOfephemeral-storage")];

/// Of each resource so much, in nano-units.
type Amounts = [i128; RESOURCES.len()];

/// What the node has and who holds it.
pub(crate) struct Room {
    all: Amounts,
    most_pods: usize,
    held: Mutex<BTreeMap<String, Amounts>>,
}

impl Room {
    /// Of a node with so much.
    pub(crate) fn new(all: Allocatable, most_pods: u32) -> Room {
        let nano = |units: i64| i128::from(units) * 1_000_000_000;
        let all = [i128::from(all.cpu_milli) * 1_000_000, nano(all.memory_bytes), nano(all.ephemeral_storage_bytes)];
        Room { all, most_pods: usize::try_from(most_pods).unwrap_or(usize::MAX), held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Amounts>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a pod that is here already, whether there is room or not.
    pub(crate) fn hold(&self, uid: &str, pod: &Pod) {
        self.held().insert(uid.to_owned(), requests(pod));
    }

    /// Takes room for a pod, unless it has it already.
    ///
    /// # Errors
    /// When there is none: the reason and a sentence for its status.
    pub(crate) fn take(&self, uid: &str, pod: &Pod) -> Result<(), (&'static str, String)> {
        let mut held = self.held();
        if held.contains_key(uid) {
            return Ok(());
        }
        if held.len() >= self.most_pods {
            return Err(("OutOfpods", short_of("pods", 1, held.len(), self.most_pods)));
        }
        let wanted = requests(pod);
        for (at, (resource, reason)) in RESOURCES.into_iter().enumerate() {
            let used = held.values().fold(0_i128, |sum, amounts| sum.saturating_add(amounts[at]));
            if wanted[at] > 0 && used.saturating_add(wanted[at]) > self.all[at] {
                let unit = if resource == "cpu" { 1_000_000 } else { 1_000_000_000 };
                let [wanted, used, all] = [wanted[at], used, self.all[at]].map(|amount| amount / unit);
                return Err((reason, short_of(resource, wanted, used, all)));
            }
        }
        held.insert(uid.to_owned(), wanted);
        Ok(())
    }

    /// A pod needs its room no more.
    pub(crate) fn release(&self, uid: &str) {
        self.held().remove(uid);
    }
}

/// Processor time in thousandths, all else in units.
fn short_of<T: std::fmt::Display>(
    resource: &str,
    wanted: T,
    used: impl std::fmt::Display,
    all: impl std::fmt::Display,
) -> String {
    format!(
        "Pod was rejected: Node didn't have enough resource: {resource}, requested: {wanted}, used: {used}, capacity: {all}"
    )
}

/// Requests of a pod: its containers together, or its greatest init container if that is more, and overhead. What
/// cannot be read counts as nothing here; it is told when the container is to start.
fn requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return [0; RESOURCES.len()] };
    RESOURCES.map(|(resource, _)| {
        let amount = |list: Option<&_>| resources::read(list, resource).ok().flatten().map_or(0, Quantity::nano);
        let of = |c: &Container| amount(c.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
        let sum = |amounts: &mut dyn Iterator<Item = i128>| amounts.fold(0_i128, i128::saturating_add);
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let beside = sum(&mut init.iter().filter(|c| is_sidecar(c)).map(of));
        let running = sum(&mut spec.containers.iter().map(of)).saturating_add(beside);
        let first = init.iter().filter(|c| !is_sidecar(c)).map(of).max().unwrap_or_default();
        running.max(first.saturating_add(beside)).saturating_add(amount(spec.overhead.as_ref()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn room() -> Room {
        let gib = 1 << 30;
        Room::new(Allocatable { cpu_milli: 2000, memory_bytes: gib, ephemeral_storage_bytes: gib }, 3)
    }

    fn pod(cpu: &str, memory: &str) -> Pod {
        let resources = json!({"requests": {"cpu": cpu, "memory": memory}});
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})).expect("a pod")
    }

    #[test]
    fn a_pod_that_asks_for_more_than_there_is_left_is_told_of_what() {
        let room = room();
        room.take("a", &pod("1500m", "512Mi")).expect("there is room");
        let (reason, message) = room.take("b", &pod("1", "1Mi")).expect_err("too much");
        assert_eq!(reason, "OutOfcpu");
        assert_eq!(
            message,
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
        );
        assert_eq!(room.take("b", &pod("500m", "1Gi")).expect_err("too much").0, "OutOfmemory");
        room.take("b", &pod("500m", "512Mi")).expect("just enough");
        room.take("b", &pod("500m", "512Mi")).expect("it has it already");
        room.release("a");
        room.take("c", &pod("1500m", "0")).expect("there is room again");
    }

    #[test]
    fn there_are_so_many_pods_and_no_more() {
        let room = room();
        for uid in ["a", "b", "c"] {
            room.take(uid, &pod("0", "0")).expect("there is room");
        }
        assert_eq!(room.take("d", &pod("0", "0")).expect_err("too many").0, "OutOfpods");
        room.hold("kept", &pod("9", "9Gi"));
        assert_eq!(room.held().len(), 4, "what runs already stays");
    }

    #[test]
    fn a_pod_asks_for_its_containers_and_sidecars_or_for_its_greatest_init_container() {
        let c = |cpu: &str, policy: Option<&str>| {
            json!({"name": "c", "restartPolicy": policy,
            "resources": {"requests": {"cpu": cpu}}})
        };
        let pod = json!({"spec": {"overhead": {"cpu": "1"}, "containers": [c("1", None), c("2", None)],
            "initContainers": [c("4", Some("Always")), c("5", None), c("1", None)]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        assert_eq!(requests(&pod)[0], 10 * 1_000_000_000);
    }
}
