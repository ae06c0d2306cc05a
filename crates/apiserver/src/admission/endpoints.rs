//! Where Endpoints, EndpointSlices and external addresses may lead.
//!
//! Whoever writes one makes the machine send requests there, with the machine's own place in the network. So nobody
//! leads traffic to loopback or to the link, and only who holds `endpoints/restricted` leads it to the machine's own
//! addresses: the controllers, who publish the gateway.

use std::{collections::BTreeSet, net::IpAddr};

use futures_util::future::BoxFuture;
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

/// Most external addresses of a Service times its ports.
const MOST_PLACES: usize = 10_000;

/// Endpoints.
pub(crate) fn endpoints<'a>(
    admission: &'a mut Admission<'_>,
    endpoints: &'a mut Value,
) -> BoxFuture<'a, Result<(), Status>> {
    Box::pin(of_endpoints(admission, endpoints))
}

async fn of_endpoints(admission: &Admission<'_>, endpoints: &Value) -> Result<(), Status> {
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
    check(admission, endpoints, "endpoints", &found).await
}

/// EndpointSlices.
pub(crate) fn slice<'a>(admission: &'a mut Admission<'_>, slice: &'a mut Value) -> BoxFuture<'a, Result<(), Status>> {
    Box::pin(of_slice(admission, slice))
}

async fn of_slice(admission: &Admission<'_>, slice: &Value) -> Result<(), Status> {
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
    check(admission, slice, "endpointslices", &found).await
}

/// Refuses addresses that no traffic is led to, and the machine's own unless the writer may.
async fn check(
    admission: &Admission<'_>,
    object: &Value,
    plural: &str,
    found: &[(String, &str)],
) -> Result<(), Status> {
    let mut causes = Vec::new();
    // Asked before the machine is: whoever may needs no list of its interfaces, and there is one for each pod.
    let own = match found.is_empty() || may_create(admission, plural, "restricted") {
        true => None,
        false => Some(admission.view.machine().await?),
    };
    for (field, text) in found {
        let Some(ip) = address(text, field, &mut causes) else { continue };
        let gateway = admission.view.is_gateway(ip);
        if let Some(why) = special(ip).filter(|_| !gateway) {
            causes.push(Cause::invalid(field, &(*text).into(), &why));
        } else if own.as_ref().is_some_and(|own| gateway || own.contains(&ip)) {
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
    admission.view.authority().authorize(admission.identity, &attributes).is_allowed()
}

/// A Service's `externalIPs`: every connection to one of them, from any pod, goes to the Service. So they are for who may
/// lead traffic to the machine itself, they are never the machine's own, and no two Services share one and its port.
pub(super) async fn external(admission: &Admission<'_>, service: &Value) -> Result<(), Status> {
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
    let own = if new.is_empty() { Vec::new() } else { admission.view.machine().await? };
    for (at, text) in new {
        let field = format!("spec.externalIPs[{at}]");
        let Some(ip) = address(text, &field, &mut causes) else { continue };
        if let Some(why) = refused_external(admission, &own, ip) {
            causes.push(Cause::invalid(field, &text.into(), &why));
        }
    }
    let ports = object::list(service, "/spec/ports").len();
    if list.len().saturating_mul(ports) > MOST_PLACES {
        let why = format!("addresses times ports may be at most {MOST_PLACES}");
        causes.push(Cause::invalid("spec.externalIPs", &list.len().into(), &why));
    }
    // Every address with every port: nobody makes that list for who is refused anyway.
    if causes.is_empty() {
        for (at, why) in external::conflicts(&admission.view.snapshot(), admission.old, service) {
            causes.push(Cause::invalid(format!("spec.externalIPs[{at}]"), &list[at], &why));
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(admission.resource.invalid(object::name(service), causes)) }
}

fn refused_external(admission: &Admission<'_>, own: &[IpAddr], ip: IpAddr) -> Option<String> {
    if let Some(why) = special(ip) {
        return Some(why);
    }
    if admission.view.is_gateway(ip) || own.contains(&ip) {
        return Some(OF_THE_NODE.into());
    }
    let IpAddr::V4(v4) = ip else { return None };
    if addresses::in_range(v4) {
        return Some("may not be in the range of cluster IPs: it may be another Service's".into());
    }
    admission.view.is_pods(v4).then(|| "may not be in the range of pods: it may be one's address".into())
}
