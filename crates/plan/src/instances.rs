//! Which pods take requests for a Revision, and where.

use std::{net::SocketAddr, sync::Arc};

use knoll_api::{
    Resource, conditions::TRUE, k8s_openapi::api::core::v1::Pod, labels::serving as keys, serving::Revision,
    table::Instance,
};

use crate::{QueuePlacement, World, serving::revision};

/// Whether a pod takes requests: ready, and not on its way out.
pub(crate) fn takes_requests(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == TRUE);
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// The pods of a Revision that take requests, by name.
pub(crate) fn ready_pods(world: &World, namespace: &str, revision: &str) -> impl Iterator<Item = Arc<Pod>> + use<> {
    world.pods.labelled(namespace, keys::REVISION, revision).into_iter().filter(|pod| takes_requests(pod))
}

/// How many pods of a Revision take requests.
pub(crate) fn ready_count(world: &World, namespace: &str, revision: &str) -> u32 {
    u32::try_from(ready_pods(world, namespace, revision).count()).unwrap_or(u32::MAX)
}

/// Where the instances of `revision` take requests, ordered by address.
pub(crate) fn instances(world: &World, revision: &Revision) -> Vec<Instance> {
    let mut found: Vec<Instance> = ready_pods(world, revision.namespace(), revision.name())
        .filter_map(|pod| {
            let address = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
            let port = match world.settings.queue_placement {
                QueuePlacement::Gateway => user_port(&pod).unwrap_or_else(|| revision::user_port(revision)),
                QueuePlacement::Sidecar => revision::queue_port(revision),
            };
            let port = u16::try_from(port).ok()?;
            Some(Instance { address: SocketAddr::new(address, port), pod: pod.name().to_owned() })
        })
        .collect();
    found.sort();
    found
}

/// The port that the pod itself declares for requests.
pub fn user_port(pod: &Pod) -> Option<i32> {
    let containers = &pod.spec.as_ref()?.containers;
    let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports.find(|port| port.name.as_deref() == Some(revision::USER_PORT_NAME)).map(|port| port.container_port)
}
