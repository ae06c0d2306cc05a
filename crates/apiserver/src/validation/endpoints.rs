//! Endpoints and EndpointSlices, besides where they lead (see `admission::endpoints`).

use serde_json::Value;

use super::{core::port_number, names};
use crate::{object, status::Cause};

/// Most endpoints of a slice.
const ENDPOINTS: usize = 1000;
/// Most ports of a slice.
const PORTS: usize = 20_000;
/// Most addresses of one endpoint of a slice.
const ADDRESSES: usize = 100;

/// Endpoints.
pub(crate) fn endpoints(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (at, subset) in object::list(new, "/subsets").iter().enumerate() {
        let field = format!("subsets[{at}]");
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|list| object::list(subset, &format!("/{list}")).is_empty()) {
            causes.push(Cause::required(&field, "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in lists {
            for (at, address) in object::list(subset, &format!("/{list}")).iter().enumerate() {
                host_name(address, &format!("{field}.{list}[{at}]"), &mut causes);
            }
        }
        ports(object::list(subset, "/ports"), &field, &mut causes);
    }
    causes
}

/// EndpointSlices.
pub(crate) fn slice(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = object::text(new, "/addressType");
    let kinds = ["FQDN", "IPv4", "IPv6"];
    if kind.is_empty() {
        causes.push(Cause::required("addressType", ""));
    } else if !kinds.contains(&kind) {
        causes.push(Cause::not_supported("addressType", &kind.into(), &kinds));
    }
    if old.is_some_and(|old| old["addressType"] != new["addressType"]) {
        causes.push(Cause::invalid("addressType", &kind.into(), "field is immutable"));
    }
    let endpoints = object::list(new, "/endpoints");
    if endpoints.len() > ENDPOINTS {
        causes.push(Cause::too_many("endpoints", endpoints.len(), ENDPOINTS));
        return causes;
    }
    for (at, endpoint) in endpoints.iter().enumerate() {
        let field = format!("endpoints[{at}]");
        let addresses = object::list(endpoint, "/addresses");
        if addresses.is_empty() {
            causes.push(Cause::required(format!("{field}.addresses"), "must contain at least 1 address"));
        } else if addresses.len() > ADDRESSES {
            causes.push(Cause::too_many(format!("{field}.addresses"), addresses.len(), ADDRESSES));
        }
        host_name(endpoint, &field, &mut causes);
    }
    let listed = object::list(new, "/ports");
    if listed.len() > PORTS {
        causes.push(Cause::too_many("ports", listed.len(), PORTS));
        return causes;
    }
    slice_ports(listed, &mut causes);
    causes
}

fn host_name(endpoint: &Value, field: &str, causes: &mut Vec<Cause>) {
    let host = object::text(endpoint, "/hostname");
    if let (false, Err(why)) = (host.is_empty(), names::label(host)) {
        causes.push(Cause::invalid(format!("{field}.hostname"), &host.into(), &why));
    }
}

fn ports(ports: &[Value], parent: &str, causes: &mut Vec<Cause>) {
    for (at, port) in ports.iter().enumerate() {
        let field = format!("{parent}.ports[{at}]");
        let name = object::name_of(port);
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(format!("{field}.name"), ""));
        } else if let (false, Err(why)) = (name.is_empty(), names::label(name)) {
            causes.push(Cause::invalid(format!("{field}.name"), &name.into(), &why));
        }
        port_number(&port["port"], format!("{field}.port"), causes);
        protocol(port, &field, causes);
    }
}

fn slice_ports(ports: &[Value], causes: &mut Vec<Cause>) {
    let mut seen = std::collections::BTreeSet::new();
    for (at, port) in ports.iter().enumerate() {
        let field = format!("ports[{at}]");
        let name = object::name_of(port);
        if let (false, Err(why)) = (name.is_empty(), names::label(name)) {
            causes.push(Cause::invalid(format!("{field}.name"), &name.into(), &why));
        }
        if !seen.insert(name) {
            causes.push(Cause::duplicate(format!("{field}.name"), &name.into()));
        }
        if !port["port"].is_null() {
            port_number(&port["port"], format!("{field}.port"), causes);
        }
        protocol(port, &field, causes);
    }
}

fn protocol(port: &Value, field: &str, causes: &mut Vec<Cause>) {
    let protocol = object::text(port, "/protocol");
    let known = ["SCTP", "TCP", "UDP"];
    if !protocol.is_empty() && !known.contains(&protocol) {
        causes.push(Cause::not_supported(format!("{field}.protocol"), &protocol.into(), &known));
    }
}
