//! What the pods of each node ask of it. Kept up with each pod that comes, changes or goes, so that placing one looks at
//! nodes and not at every pod on them.

use std::collections::BTreeMap;

use knoll_api::{
    Object,
    k8s_openapi::{
        api::core::v1::{Container, Pod},
        apimachinery::pkg::api::resource::Quantity as ApiQuantity,
    },
    quantity::Quantity,
};

use super::pods;

/// What counts, in the order in which shortages are named.
pub(super) const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Amounts beyond count as this much, so that those of any number of pods can be added and taken off again.
const MOST: i128 = i128::MAX >> 32;

/// The load of each node that has any.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeLoads(BTreeMap<String, Load>);

/// Pods of a node that have not ended, and what they ask for together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) pods: i128,
    pub(super) requests: [i128; RESOURCES.len()],
}

impl NodeLoads {
    /// The load of a node.
    pub(super) fn of(&self, node: &str) -> Load {
        self.0.get(node).copied().unwrap_or_default()
    }

    /// Takes in a change.
    pub(crate) fn change(&mut self, before: Option<&Object>, after: Option<&Object>) {
        let counted = |object: Option<&Object>| match object {
            Some(Object::Pod(pod)) if !pods::is_finished(pod) => {
                pods::node(pod).map(|node| (node.to_owned(), requests(pod)))
            }
            _ => None,
        };
        let (before, after) = (counted(before), counted(after));
        if before == after {
            return;
        }
        if let Some((node, requests)) = before {
            let load = self.0.entry(node.clone()).or_default();
            load.add(-1, requests.map(|amount| -amount));
            if *load == Load::default() {
                self.0.remove(&node);
            }
        }
        if let Some((node, requests)) = after {
            self.0.entry(node).or_default().add(1, requests);
        }
    }
}

impl Load {
    fn add(&mut self, pods: i128, requests: [i128; RESOURCES.len()]) {
        self.pods += pods;
        for (sum, amount) in self.requests.iter_mut().zip(requests) {
            *sum += amount;
        }
    }
}

/// Requests of a pod: its containers together, or its greatest init container if that is more, and overhead.
pub(super) fn requests(pod: &Pod) -> [i128; RESOURCES.len()] {
    let Some(spec) = &pod.spec else { return [0; RESOURCES.len()] };
    RESOURCES.map(|resource| {
        let of = |container: &Container| {
            let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            requests.and_then(|requests| requests.get(resource)).map_or(0, nano)
        };
        let sum = |amounts: &mut dyn Iterator<Item = i128>| amounts.fold(0_i128, i128::saturating_add);
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let stays = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
        let beside = sum(&mut init.iter().filter(stays).map(of));
        let running = sum(&mut spec.containers.iter().map(of).chain([beside]));
        let greatest: i128 = init.iter().filter(|c| !stays(c)).map(of).max().unwrap_or_default();
        let overhead = spec.overhead.as_ref().and_then(|all| all.get(resource)).map_or(0, nano);
        running.max(greatest.saturating_add(beside)).saturating_add(overhead).clamp(0, MOST)
    })
}

/// An amount; one that cannot be read counts as nothing, since admission refuses such pods.
pub(super) fn nano(quantity: &ApiQuantity) -> i128 {
    quantity.0.parse().map_or(0, Quantity::nano)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Change, kube::fixture::world};
    use knoll_api::{Key, Kind};

    fn pod(name: &str, cpu: &str, phase: &str, node: Option<&str>) -> Change {
        let value = json!({"metadata": {"namespace": "a", "name": name},
            "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
            "status": {"phase": phase}});
        Change::Put(Object::from_json(Kind::Pod, value).expect("a pod"))
    }

    #[test]
    fn a_node_bears_what_runs_on_it_and_nothing_else() {
        let mut world = world(&[]);
        let load = |pods, milli: i128| Load { pods, requests: [milli * 1_000_000, 0, 0] };
        world.apply(pod("p", "100m", "Pending", None));
        assert_eq!(world.node_loads.of("n"), load(0, 0), "not bound yet");
        world.apply(pod("p", "100m", "Pending", Some("n")));
        world.apply(pod("q", "50m", "Running", Some("n")));
        world.apply(pod("q", "50m", "Running", Some("n")));
        assert_eq!(world.node_loads.of("n"), load(2, 150));
        world.apply(pod("q", "70m", "Running", Some("n")));
        assert_eq!(world.node_loads.of("n"), load(2, 170), "it was resized");
        world.apply(pod("p", "100m", "Succeeded", Some("n")));
        assert_eq!(world.node_loads.of("n"), load(1, 70), "it has ended");
        world.apply(Change::Gone(Kind::Pod, Key::new("a", "p")));
        world.apply(Change::Gone(Kind::Pod, Key::new("a", "q")));
        assert!(world.node_loads.0.is_empty());
    }

    #[test]
    fn absurd_amounts_come_off_again() {
        let mut world = world(&[]);
        world.apply(pod("small", "1", "Running", Some("n")));
        let before = world.node_loads.of("n");
        let huge = "9".repeat(60);
        for name in ["p", "q", "r"] {
            world.apply(pod(name, &huge, "Running", Some("n")));
        }
        for name in ["p", "q", "r"] {
            world.apply(Change::Gone(Kind::Pod, Key::new("a", name)));
        }
        assert_eq!(world.node_loads.of("n"), before);
    }
}
