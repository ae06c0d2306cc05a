//! Where Endpoints, EndpointSlices and external addresses may lead.
//!
//! Whoever writes one makes the machine send requests there, with the machine's own place in the network. So nobody
//! leads traffic to loopback or to the link, and only who holds `endpoints/restricted` leads it to the machine's own
//! addresses: the controllers, who publish the gateway.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::Admission;
use crate::{
    addresses,
    attributes::Attributes,
    external, object,
    status::{Cause, Status},
    validation::addresses::{address, special},
};

const OF_THE_NODE: &str = "may not be an address of the node itself";

/// Endpoints.
pub(crate) fn endpoints(admission: &mut Admission<'_>, endpoints: &mut Value) -> Result<(), Status> {
    if admission.old.is_some_and(|old| old.get("subsets") == endpoints.get("subsets")) {
        return Ok(());
    }
    let mut found = Vec::new();
    for (at, subset) in object::list(endpoints, "/subsets").iter().enumerate() {
        for list in ["addresses", "notReadyAddresses"] {
            for (n, one) in object::list(subset, &format!("/{list}")).iter().enumerate() {
                found.push((format!("subsets[{at}].{list}[{n}].ip"), object::text(one, "/ip")));
            }
        }
    }
    check(admission, endpoints, "endpoints", &found)
}

/// EndpointSlices.
pub(crate) fn slice(admission: &mut Admission<'_>, slice: &mut Value) -> Result<(), Status> {
    let same = |old: &Value| old.get("endpoints") == slice.get("endpoints");
    if slice["addressType"] == "FQDN" || admission.old.is_some_and(same) {
        return Ok(());
    }
    let mut found = Vec::new();
    for (at, endpoint) in object::list(slice, "/endpoints").iter().enumerate() {
        for (n, one) in object::list(endpoint, "/addresses").iter().enumerate() {
            found.push((format!("endpoints[{at}].addresses[{n}]"), one.as_str().unwrap_or_default()));
        }
    }
    check(admission, slice, "endpointslices", &found)
}

/// Refuses addresses that no traffic is led to, and the machine's own unless the writer may.
fn check(admission: &Admission<'_>, object: &Value, plural: &str, found: &[(String, &str)]) -> Result<(), Status> {
    let mut causes = Vec::new();
    let mut may = None;
    let mut own = None;
    for (field, text) in found {
        let Some(ip) = address(text, field, &mut causes) else { continue };
        let gateway = ip == admission.server.config.advertise.ip();
        if let Some(why) = special(ip).filter(|_| !gateway) {
            causes.push(Cause::invalid(field, &(*text).into(), &why));
            continue;
        }
        let is_own = gateway || own.get_or_insert_with(|| (admission.server.config.machine)()).contains(&ip);
        if is_own && !*may.get_or_insert_with(|| may_create(admission, plural, "restricted")) {
            causes.push(Cause::invalid(field, &(*text).into(), OF_THE_NODE));
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(admission.resource.invalid(object::name(object), causes)) }
}

/// Whether the writer has the right to create a part that is none but a right.
fn may_create(admission: &Admission<'_>, plural: &str, part: &str) -> bool {
    let attributes = Attributes {
        verb: "create".into(),
        group: admission.resource.group.clone(),
        version: admission.resource.version.clone(),
        resource: plural.into(),
        subresource: part.into(),
        namespace: admission.namespace.into(),
        ..Attributes::default()
    };
    admission.server.config.authority.authorize(admission.identity, &attributes).is_allowed()
}

/// A Service's `externalIPs`: every connection to one of them, from any pod, goes to the Service. So they are for who may
/// lead traffic to the machine itself, they are never the machine's own, and no two Services share one and its port.
pub(super) fn external(admission: &Admission<'_>, service: &Value) -> Result<(), Status> {
    let had = admission.old.into_iter().flat_map(|old| object::list(old, "/spec/externalIPs"));
    let had: BTreeSet<&str> = had.filter_map(Value::as_str).collect();
    let list = object::list(service, "/spec/externalIPs");
    let new: Vec<(usize, &str)> = list
        .iter()
        .enumerate()
        .map(|(at, value)| (at, value.as_str().unwrap_or_default()))
        .filter(|(_, text)| !had.contains(text))
        .collect();
    let mut causes = Vec::new();
    if !new.is_empty() && !may_create(admission, "services", "externalips") {
        let why = "Use of external IPs is denied: every pod's connections to them would come here; it needs the right to create \"services/externalips\"";
        causes.push(Cause::forbidden("spec.externalIPs", why));
    }
    for (at, text) in new {
        let field = format!("spec.externalIPs[{at}]");
        let Some(ip) = address(text, &field, &mut causes) else { continue };
        if let Some(why) = refused_external(admission, ip) {
            causes.push(Cause::invalid(field, &text.into(), &why));
        }
    }
    for (at, why) in external::conflicts(&admission.server.store, admission.old, service) {
        causes.push(Cause::invalid(format!("spec.externalIPs[{at}]"), &list[at], &why));
    }
    if causes.is_empty() { Ok(()) } else { Err(admission.resource.invalid(object::name(service), causes)) }
}

fn refused_external(admission: &Admission<'_>, ip: IpAddr) -> Option<String> {
    if let Some(why) = special(ip) {
        return Some(why);
    }
    let config = &admission.server.config;
    if ip == config.advertise.ip() || (config.machine)().contains(&ip) {
        return Some(OF_THE_NODE.into());
    }
    let IpAddr::V4(v4) = ip else { return None };
    if addresses::in_range(v4) {
        return Some("may not be in the range of cluster IPs: it may be another Service's".into());
    }
    let (network, bits) = config.pod_network;
    let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
    let inside = u32::from(v4) & mask == u32::from(network) & mask;
    inside.then(|| "may not be in the range of pods: it may be one's address".into())
}
