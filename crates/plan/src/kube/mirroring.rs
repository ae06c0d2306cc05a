//! Endpoints that someone wrote for a Service without a selector → EndpointSlices with the same addresses, so that
//! those who read slices only see them too.

use std::collections::BTreeMap;

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    k8s_openapi::api::{
        core::v1::{EndpointAddress, EndpointSubset, Endpoints},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
};

use super::{
    endpoint_slice::{self, MANAGED_BY, SERVICE_NAME, address_type},
    endpoints::{self, MANAGER as ENDPOINTS_MANAGER},
};
use crate::{Absence, Plan, Row, World, by_same_key};

/// Value of the manager label on mirrored slices.
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label: `true` keeps Endpoints from being mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that are a lock, not a list.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// See the module.
pub(super) const ROW: Row = Row {
    name: "endpoint-slice-mirroring",
    of: Kind::Endpoints,
    wakes: &[(Kind::CoreService, by_same_key), (Kind::EndpointSlice, endpoint_slice::by_service)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

fn plan(world: &World, key: &Key, _now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let mirrored = world.endpoints.get(key).filter(|endpoints| is_mirrored(world, key, endpoints));
    let wanted = mirrored.map(|endpoints| mirror(&endpoints)).unwrap_or_default();
    endpoint_slice::reconcile(&mut plan, world, key, MANAGER, wanted);
    plan
}

fn is_mirrored(world: &World, key: &Key, endpoints: &Endpoints) -> bool {
    let service = world.core_services.get(key);
    service.is_some_and(|service| !service.is_deleting() && endpoints::selector_of(&service).is_none())
        && !endpoints.is_deleting()
        && endpoints.label(SKIP) != Some("true")
        && endpoints.label(endpoints::MANAGED_BY) != Some(ENDPOINTS_MANAGER)
        && endpoints.annotation(LEADER).is_none()
}

/// Ports, and who serves them.
type Group = (Vec<EndpointPort>, Vec<Endpoint>);

fn mirror(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    // By address family and ports.
    let mut groups: BTreeMap<(&'static str, String), Group> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(unready) {
            let group = groups.entry((address_type(&address.ip), format!("{ports:?}")));
            group.or_insert_with(|| (ports.clone(), Vec::new())).1.push(endpoint(address, ready));
        }
    }
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    for key in [SERVICE_NAME, MANAGED_BY] {
        labels.remove(key);
    }
    let mut slices = Vec::new();
    for ((family, _), (ports, list)) in groups {
        slices.extend(endpoint_slice::cut(endpoints, endpoints.name(), MANAGER, &labels, family, &ports, list));
    }
    slices
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    });
    ports.collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{plan_of, put, world};
    use super::*;

    #[test]
    fn a_written_list_is_mirrored_followed_and_forgotten() {
        let mut w = world(&["Namespace a"]);
        put(&mut w, Kind::CoreService, json!({"metadata": {"namespace": "a", "name": "s"}, "spec": {}}));
        let list = |ip: &str| {
            json!({"metadata": {"namespace": "a", "name": "s"}, "subsets": [
                {"addresses": [{"ip": ip}], "notReadyAddresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 8012}]}]})
        };
        put(&mut w, Kind::Endpoints, list("10.0.0.1"));
        assert!(plan_of(&ROW, &mut w, "a/s").starts_with("create EndpointSlice a/s-"));
        assert_eq!(plan_of(&ROW, &mut w, "a/s"), "");
        let slice = w.endpoint_slices.iter().next().expect("a slice");
        let seen: Vec<_> = slice
            .endpoints
            .iter()
            .map(|e| (e.addresses[0].as_str(), e.conditions.as_ref().and_then(|c| c.ready)))
            .collect();
        assert_eq!(seen, [("10.0.0.1", Some(true)), ("10.0.0.9", Some(false))]);

        put(&mut w, Kind::Endpoints, list("10.0.0.2"));
        assert!(plan_of(&ROW, &mut w, "a/s").starts_with("update EndpointSlice a/s-"));
        w.apply(crate::Change::Gone(Kind::Endpoints, Key::new("a", "s")));
        assert!(plan_of(&ROW, &mut w, "a/s").starts_with("delete EndpointSlice a/s-"));
    }

    #[test]
    fn a_service_with_a_selector_is_not_mirrored() {
        let mut w = world(&["Namespace a"]);
        put(
            &mut w,
            Kind::CoreService,
            json!({"metadata": {"namespace": "a", "name": "s"}, "spec": {"selector": {"a": "b"}}}),
        );
        put(
            &mut w,
            Kind::Endpoints,
            json!({"metadata": {"namespace": "a", "name": "s"}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]}),
        );
        assert_eq!(plan_of(&ROW, &mut w, "a/s"), "");
    }
}
