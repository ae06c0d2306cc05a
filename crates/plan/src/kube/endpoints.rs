//! Service with a selector → its Endpoints and EndpointSlices: the pods it picks, ready ones apart from the rest.
//! Services without a selector are left to those who write their Endpoints, and to `mirroring`.

use std::collections::BTreeMap;

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    k8s_openapi::{
        api::core::v1::{
            EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServicePort,
        },
        apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
    },
};

use super::{endpoint_slice, pods, selector};
use crate::{Absence, Plan, Row, World, by_same_key, terms::selectors_of};

/// Label: who keeps an Endpoints object.
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`] on ours.
pub(super) const MANAGER: &str = "endpoint-controller";
/// Label: the Service has no address of its own.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotation: some addresses were left out.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses in an Endpoints object.
const MOST_ADDRESSES: usize = 1000;

/// See the module.
pub(super) const ROW: Row = Row {
    name: "endpoints",
    of: Kind::CoreService,
    wakes: &[
        (Kind::Pod, by_selector),
        (Kind::Endpoints, by_same_key),
        (Kind::EndpointSlice, endpoint_slice::by_service),
    ],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// Services whose selector picks the pod.
fn by_selector(world: &World, object: &Object, _of: Kind) -> Vec<Key> {
    let Object::Pod(pod) = object else { return Vec::new() };
    let terms = selectors_of(pod.namespace(), pod.metadata.labels.as_ref());
    let services = terms.flat_map(|term| world.core_services.find(term));
    let picking = services.filter(|service| {
        service.namespace() == pod.namespace() && selector_of(service).is_some_and(|s| selector::picks_pod(s, pod))
    });
    picking.map(|service| service.key()).collect()
}

/// The selector of a Service that has one and resolves to pods.
pub(super) fn selector_of(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"))?;
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// Whether a Service has no address of its own.
pub(super) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

fn plan(world: &World, key: &Key, _now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let current = world.endpoints.get(key);
    let service = world.core_services.get(key).filter(|service| !service.is_deleting());
    let selecting = service.as_ref().and_then(|service| Some((service.as_ref(), selector_of(service)?)));
    let Some((service, selector)) = selecting else {
        let left = current.filter(|current| service.is_none() && current.label(MANAGED_BY) == Some(MANAGER));
        if let Some(left) = left {
            plan.delete(left.as_ref());
        }
        endpoint_slice::reconcile(&mut plan, world, key, endpoint_slice::MANAGER, Vec::new());
        return plan;
    };
    let found = pods::picked(world, &key.namespace, selector);
    let picked: Vec<&Pod> = found.iter().map(AsRef::as_ref).filter(|pod| has_address(pod)).collect();
    let wanted = endpoints(service, &picked, current.as_deref());
    match &current {
        None => plan.create(wanted),
        Some(current) => plan.update(current.as_ref(), wanted),
    }
    endpoint_slice::reconcile(
        &mut plan,
        world,
        key,
        endpoint_slice::MANAGER,
        endpoint_slice::of_pods(service, &picked),
    );
    plan
}

/// Whether a pod has an address that may still answer.
fn has_address(pod: &Pod) -> bool {
    !pods::is_finished(pod) && address(pod).is_some()
}

/// Address of a pod.
pub(super) fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())
}

/// Whether callers may see pods that are not ready.
pub(super) fn publishes_all(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.publish_not_ready_addresses == Some(true))
}

/// A Service's port, as one pod serves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    /// Name of the Service's port.
    pub(super) name: Option<String>,
    /// Where the pod listens.
    pub(super) port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub(super) protocol: String,
    /// What is spoken there.
    pub(super) app_protocol: Option<String>,
}

/// The ports of `service` that `pod` serves. A named target that the pod lacks is left out.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let declared = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let mut ports: Vec<Port> = declared
        .iter()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().filter(|name| !name.is_empty()),
                port: target(port, pod)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let staying = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let declared = spec.containers.iter().chain(staying).flat_map(|container| container.ports.iter().flatten());
    let mut matching =
        declared.filter(|p| p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol);
    matching.next().map(|port| port.container_port)
}

/// What tells callers which pod an address is.
pub(super) fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Host name of a pod under the Service's name, when it has one there.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain.as_deref() == Some(service.name());
    spec.hostname.clone().filter(|name| named && !name.is_empty())
}

fn endpoints(service: &Service, picked: &[&Pod], current: Option<&Endpoints>) -> Endpoints {
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let portless = service.spec.as_ref().is_none_or(|spec| spec.ports.as_ref().is_none_or(Vec::is_empty));
    let mut left_out = false;
    let mut count = 0;
    // Ready ones first, so that those who do not fit are the others.
    let mut ordered: Vec<(bool, &str, &Pod)> = picked
        .iter()
        .filter(|pod| !pod.is_deleting() || publishes_all(service))
        .filter_map(|pod| Some((!(pods::is_ready(pod) || publishes_all(service)), address(pod)?, *pod)))
        .collect();
    ordered.sort_by_key(|(unready, ip, pod)| (*unready, numeric(ip), pod.name().to_owned()));
    for (unready, ip, pod) in ordered {
        let ports = ports(service, pod);
        if ports.is_empty() && !(portless && is_headless(service)) {
            continue;
        }
        if count == MOST_ADDRESSES {
            left_out = true;
            break;
        }
        count += 1;
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(service, pod),
            node_name: pods::node(pod).map(str::to_owned),
            target_ref: Some(target_ref(pod)),
        };
        let group = groups.entry(ports).or_default();
        if unready { group.1.push(address) } else { group.0.push(address) }
    }
    let some = |list: Vec<EndpointAddress>| Some(list).filter(|list| !list.is_empty());
    let subsets: Vec<EndpointSubset> = groups
        .into_iter()
        .map(|(ports, (ready, unready))| EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(unready),
            ports: Some(ports.into_iter().map(api_port).collect()).filter(|ports: &Vec<_>| !ports.is_empty()),
        })
        .collect();
    Endpoints {
        metadata: metadata(service, current, left_out),
        subsets: Some(subsets).filter(|subsets| !subsets.is_empty()),
    }
}

/// Sorts addresses by number where they are numbers.
fn numeric(ip: &str) -> (Option<std::net::IpAddr>, String) {
    (ip.parse().ok(), ip.to_owned())
}

fn api_port(port: Port) -> EndpointPort {
    EndpointPort { name: port.name, port: port.port, protocol: Some(port.protocol), app_protocol: port.app_protocol }
}

fn metadata(service: &Service, current: Option<&Endpoints>, left_out: bool) -> ObjectMeta {
    let mut metadata = current.map(|current| current.metadata.clone()).unwrap_or_default();
    metadata.name = service.metadata.name.clone();
    metadata.namespace = service.metadata.namespace.clone();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    metadata.labels = Some(labels);
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    if left_out {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    metadata
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::super::fixture::{plan_of, put, world};
    use super::*;

    fn service(w: &mut World, spec: serde_json::Value) {
        put(w, Kind::CoreService, json!({"metadata": {"namespace": "a", "name": "s"}, "spec": spec}));
    }

    fn pod(w: &mut World, name: &str, ip: &str, ready: &str, extra: serde_json::Value) {
        let mut value = json!({
            "metadata": {"namespace": "a", "name": name, "labels": {"app": "x"}},
            "spec": {"nodeName": "n", "containers": [
                {"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
        });
        if let Some(deleted) = extra.get("deleted") {
            value["metadata"]["deletionTimestamp"] = deleted.clone();
        }
        if let Some(port) = extra.get("port") {
            value["spec"]["containers"][0]["ports"][0]["containerPort"] = port.clone();
        }
        put(w, Kind::Pod, value);
    }

    fn show(w: &World) -> String {
        let ips = |list: &Option<Vec<EndpointAddress>>| {
            list.iter().flatten().map(|address| address.ip.clone()).collect::<Vec<_>>().join(",")
        };
        let mut shown = String::new();
        for subset in w.endpoints.iter().flat_map(|endpoints| endpoints.subsets.clone().unwrap_or_default()) {
            let ports: Vec<_> = subset.ports.iter().flatten().map(|port| port.port).collect();
            shown += &format!(
                "subset {ports:?} ready {} not {}\n",
                ips(&subset.addresses),
                ips(&subset.not_ready_addresses)
            );
        }
        let mut slices: Vec<_> = w.endpoint_slices.iter().collect();
        slices.sort_by_key(|slice| slice.ports.iter().flatten().map(|port| port.port).collect::<Vec<_>>());
        for slice in slices {
            let ports: Vec<_> = slice.ports.iter().flatten().filter_map(|port| port.port).collect();
            shown += &format!("slice {} {ports:?}\n", slice.label("kubernetes.io/service-name").unwrap_or_default());
            for endpoint in &slice.endpoints {
                let c = endpoint.conditions.clone().unwrap_or_default();
                shown += &format!(
                    "  {} ready {:?} serving {:?} terminating {:?}\n",
                    endpoint.addresses[0], c.ready, c.serving, c.terminating
                );
            }
        }
        shown
    }

    #[test]
    fn pods_are_listed_by_what_they_serve_and_whether_they_are_ready() {
        let mut w = world(&["Namespace a"]);
        let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}]);
        service(&mut w, json!({"selector": {"app": "x"}, "clusterIP": "10.96.0.9", "ports": ports}));
        pod(&mut w, "p10", "10.244.0.10", "True", json!({}));
        pod(&mut w, "p9", "10.244.0.9", "True", json!({}));
        pod(&mut w, "p3", "10.244.0.3", "False", json!({}));
        pod(&mut w, "p4", "10.244.0.4", "True", json!({"deleted": "2025-06-15T15:00:00Z"}));
        pod(&mut w, "p5", "10.244.0.5", "True", json!({"port": 9090}));
        assert!(plan_of(&ROW, &mut w, "a/s").starts_with("create Endpoints a/s\ncreate EndpointSlice a/s-"));
        assert_eq!(plan_of(&ROW, &mut w, "a/s"), "", "at rest");
        expect![[r#"
            subset [8080] ready 10.244.0.9,10.244.0.10 not 10.244.0.3
            subset [9090] ready 10.244.0.5 not 
            slice s [8080]
              10.244.0.3 ready Some(false) serving Some(false) terminating Some(false)
              10.244.0.4 ready Some(false) serving Some(true) terminating Some(true)
              10.244.0.9 ready Some(true) serving Some(true) terminating Some(false)
              10.244.0.10 ready Some(true) serving Some(true) terminating Some(false)
            slice s [9090]
              10.244.0.5 ready Some(true) serving Some(true) terminating Some(false)
        "#]]
        .assert_eq(&show(&w));
    }

    #[test]
    fn what_the_service_no_longer_picks_goes_with_it() {
        let mut w = world(&["Namespace a"]);
        service(&mut w, json!({"selector": {"app": "x"}, "ports": [{"port": 80}]}));
        pod(&mut w, "p", "10.244.0.2", "True", json!({}));
        plan_of(&ROW, &mut w, "a/s");
        w.apply(crate::Change::Gone(Kind::CoreService, Key::new("a", "s")));
        let printed = plan_of(&ROW, &mut w, "a/s");
        assert!(printed.contains("delete Endpoints a/s") && printed.contains("delete EndpointSlice"), "{printed}");
    }

    #[test]
    fn endpoints_that_someone_wrote_are_left_alone() {
        let mut w = world(&["Namespace a"]);
        service(&mut w, json!({"ports": [{"port": 80}]}));
        put(&mut w, Kind::Endpoints, json!({"metadata": {"namespace": "a", "name": "s"}}));
        assert_eq!(plan_of(&ROW, &mut w, "a/s"), "");
        w.apply(crate::Change::Gone(Kind::CoreService, Key::new("a", "s")));
        assert_eq!(plan_of(&ROW, &mut w, "a/s"), "");
    }
}
