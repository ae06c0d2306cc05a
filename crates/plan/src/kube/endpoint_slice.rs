//! EndpointSlices of a Service: which should be there, and what to do about those that are.

use std::{collections::BTreeMap, net::IpAddr};

use knoll_api::{
    Key, Kind, Object, Resource,
    k8s_openapi::{
        api::{
            core::v1::{Pod, Service},
            discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
        },
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    },
};

use super::{
    endpoints::{HEADLESS, Port, address, hostname, is_headless, ports, publishes_all, target_ref},
    hash, pods,
};
use crate::{Plan, World};

/// Label: the Service a slice belongs to.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label: who keeps a slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`] on slices made from pods.
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Most endpoints in a slice.
pub(super) const MOST_ENDPOINTS: usize = 1000;

/// The Service a slice belongs to.
pub(super) fn by_service(_world: &World, object: &Object, _of: Kind) -> Vec<Key> {
    let meta = object.meta();
    let service = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    service.map(|name| Key::new(meta.namespace.clone().unwrap_or_default(), name.clone())).into_iter().collect()
}

/// Wants the slices of `service` that `manager` keeps to be `wanted`.
pub(super) fn reconcile(plan: &mut Plan, world: &World, service: &Key, manager: &str, wanted: Vec<EndpointSlice>) {
    let labelled = world.endpoint_slices.labelled(&service.namespace, SERVICE_NAME, &service.name);
    let mut current: BTreeMap<Key, &EndpointSlice> = labelled
        .iter()
        .filter(|slice| slice.label(MANAGED_BY) == Some(manager))
        .map(|slice| (slice.key(), slice.as_ref()))
        .collect();
    for mut slice in wanted {
        match current.remove(&slice.key()) {
            None => plan.create(slice),
            Some(was) => {
                let metadata = ObjectMeta {
                    labels: slice.metadata.labels.take(),
                    owner_references: slice.metadata.owner_references.take(),
                    ..was.metadata.clone()
                };
                plan.update(was, EndpointSlice { metadata, ..slice });
            }
        }
    }
    for slice in current.into_values().filter(|slice| !slice.is_deleting()) {
        plan.delete(slice);
    }
}

/// `IPv4` or `IPv6`.
pub(super) fn address_type(ip: &str) -> &'static str {
    match ip.parse() {
        Ok(IpAddr::V6(_)) => "IPv6",
        _ => "IPv4",
    }
}

/// The slices that the picked pods make.
pub(super) fn of_pods(service: &Service, picked: &[&Pod]) -> Vec<EndpointSlice> {
    let portless = service.spec.as_ref().is_none_or(|spec| spec.ports.as_ref().is_none_or(Vec::is_empty));
    let mut groups: BTreeMap<(&'static str, Vec<Port>), Vec<Endpoint>> = BTreeMap::new();
    for pod in picked {
        let (Some(ip), ports) = (address(pod), ports(service, pod)) else { continue };
        if ports.is_empty() && !(portless && is_headless(service)) {
            continue;
        }
        groups.entry((address_type(ip), ports)).or_default().push(endpoint(service, pod, ip));
    }
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    let mut slices = Vec::new();
    for ((family, ports), endpoints) in groups {
        let ports: Vec<EndpointPort> = ports.into_iter().map(slice_port).collect();
        slices.extend(cut(service, service.name(), MANAGER, &labels, family, &ports, endpoints));
    }
    slices
}

fn slice_port(port: Port) -> EndpointPort {
    EndpointPort {
        // Unnamed is the empty name here, unlike in Endpoints.
        name: Some(port.name.unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

fn endpoint(service: &Service, pod: &Pod, ip: &str) -> Endpoint {
    let (serving, terminating) = (pods::is_ready(pod), pod.is_deleting());
    Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_all(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: pods::node(pod).map(str::to_owned),
        target_ref: Some(target_ref(pod)),
        ..Endpoint::default()
    }
}

/// Slices of at most [`MOST_ENDPOINTS`] for one set of ports, named from what they are for.
pub(super) fn cut<O: Resource>(
    owner: &O,
    service: &str,
    manager: &str,
    labels: &BTreeMap<String, String>,
    family: &str,
    ports: &[EndpointPort],
    mut endpoints: Vec<Endpoint>,
) -> Vec<EndpointSlice> {
    endpoints.sort_by_cached_key(|endpoint| {
        let first = endpoint.addresses.first().cloned().unwrap_or_default();
        (first.parse::<IpAddr>().ok(), first)
    });
    let mut labels = labels.clone();
    labels.insert(SERVICE_NAME.into(), service.to_owned());
    labels.insert(MANAGED_BY.into(), manager.to_owned());
    let text: String = ports.iter().map(|p| format!("{:?}/{:?}/{:?};", p.name, p.port, p.protocol)).collect();
    let slice = |(at, endpoints): (usize, &[Endpoint])| EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{service}-")),
            name: Some(hash::name(service, &[owner.uid(), family, &text, &at.to_string()])),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owner.controller_reference()]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: endpoints.to_vec(),
        ports: Some(ports.to_vec()).filter(|ports| !ports.is_empty()),
    };
    endpoints.chunks(MOST_ENDPOINTS).enumerate().map(slice).collect()
}
