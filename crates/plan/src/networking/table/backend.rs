//! Who answers for a Service.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use knoll_api::{
    Key, Resource,
    conditions::{READY, is_false, is_true},
    k8s_openapi::{
        api::core::v1::{Endpoints, Pod, Service, ServicePort},
        apimachinery::pkg::util::intstr::IntOrString,
    },
    labels::serving as keys,
    serving::Revision,
    table::{Backend, Instance, Protocol, RevisionPolicy},
};

use crate::{World, instances::instances, serving::revision::is_h2c, status::Reporting};

/// A Revision's default for a whole request.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Whether the Service of this name is a Revision's public one.
pub(super) fn is_revision(world: &World, service: &Key) -> bool {
    world.revisions.get(service).is_some() && world.serverless_services.get(service).is_some()
}

/// The key of the backend that a Service and its port have.
pub(super) fn key_of(world: &World, service: &Key, port: &IntOrString) -> Key {
    if is_revision(world, service) {
        return service.clone();
    }
    let port = match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    service.sibling(format!("{}:{port}", service.name))
}

/// The Service that a backend's key speaks of, and its port unless it is a Revision's.
pub(super) fn service_of(key: &Key) -> (Key, Option<&str>) {
    match key.name.split_once(':') {
        Some((name, port)) => (key.sibling(name), Some(port)),
        None => (key.clone(), None),
    }
}

/// Who answers for `key` now.
pub(super) fn backend(world: &World, key: &Key) -> Backend {
    let (service, port) = service_of(key);
    match (port, world.revisions.get(&service)) {
        (None, Some(revision)) => of_revision(world, &revision),
        (None, None) => Backend::default(),
        (Some(port), _) => of_service(world, &service, port),
    }
}

fn of_revision(world: &World, revision: &Revision) -> Backend {
    // One that came up once may come up again, unless what should come up now is held back.
    let autoscaler = world.pod_autoscalers.get(&revision.key());
    let was_up = autoscaler.is_some_and(|a| a.condition("ScaleTargetInitialized").is_some_and(is_true));
    let ready = revision.condition(READY).filter(|ready| is_false(ready) && (!was_up || is_held_back(world, revision)));
    Backend {
        protocol: if is_h2c(revision) { Protocol::H2c } else { Protocol::Http1 },
        revision: Some(Arc::new(policy(revision))),
        instances: instances(world, revision),
        failure: ready.map(|ready| format!("{}: {}", ready.reason, ready.message)),
    }
}

/// Whether all the instances that there are wait for another try after a failed one.
fn is_held_back(world: &World, revision: &Revision) -> bool {
    let pods = world.pods.labelled(revision.namespace(), keys::REVISION, revision.name());
    let mut staying = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).peekable();
    staying.peek().is_some() && staying.all(|pod| waits_after_failure(&pod))
}

fn waits_after_failure(pod: &Pod) -> bool {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut reasons = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    reasons.any(|reason| matches!(reason, "CrashLoopBackOff" | "ImagePullBackOff" | "ErrImagePull"))
}

fn policy(revision: &Revision) -> RevisionPolicy {
    let seconds = |seconds: Option<i64>| {
        seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|s| *s > 0).map(Duration::from_secs)
    };
    let label = |key| revision.label(key).unwrap_or_default().to_owned();
    let spec = &revision.spec;
    RevisionPolicy {
        revision: revision.key(),
        uid: revision.uid().to_owned(),
        service: label(keys::SERVICE),
        configuration: label(keys::CONFIGURATION),
        container_concurrency: spec.container_concurrency.and_then(|c| u32::try_from(c).ok()).unwrap_or_default(),
        timeout: seconds(spec.timeout_seconds).unwrap_or(DEFAULT_TIMEOUT),
        response_start_timeout: seconds(spec.response_start_timeout_seconds),
        idle_timeout: seconds(spec.idle_timeout_seconds),
    }
}

fn of_service(world: &World, key: &Key, port: &str) -> Backend {
    let Some(service) = world.core_services.get(key) else { return Backend::default() };
    let Some(port) = service_port(&service, port) else { return Backend::default() };
    let h2c = port.app_protocol.as_deref() == Some("kubernetes.io/h2c")
        || port.name.as_deref().is_some_and(|name| name == "http2" || name == "h2c");
    let mut instances = world.endpoints.get(key).map(|e| addresses(&e, port)).unwrap_or_default();
    instances.sort();
    instances.dedup();
    let protocol = if h2c { Protocol::H2c } else { Protocol::Http1 };
    Backend { protocol, instances, ..Backend::default() }
}

fn service_port<'a>(service: &'a Service, wanted: &str) -> Option<&'a ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    ports.iter().find(|port| port.name.as_deref() == Some(wanted) || port.port.to_string() == wanted)
}

fn addresses(endpoints: &Endpoints, port: &ServicePort) -> Vec<Instance> {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let mut found = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<_> = subset.ports.iter().flatten().filter(|p| name(&p.name) == name(&port.name)).collect();
        for address in subset.addresses.iter().flatten() {
            let Ok(ip) = address.ip.parse() else { continue };
            let pod = address.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
            let pod = pod.and_then(|target| target.name.clone()).unwrap_or_default();
            let ports = ports.iter().filter_map(|port| u16::try_from(port.port).ok());
            found.extend(ports.map(|port| Instance { address: SocketAddr::new(ip, port), pod: pod.clone() }));
        }
    }
    found
}
