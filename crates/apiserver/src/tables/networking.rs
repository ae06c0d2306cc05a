//! `networking.k8s.io`.

use serde_json::Value;

use super::{Table, age, joined, name, none_if_empty, selector, text};
use crate::object;

/// Ingresses.
pub(crate) static INGRESS: Table = Table {
    columns: &[text("Name"), text("Class"), text("Hosts"), text("Address"), text("Ports"), text("Age")],
    cells: |o, now| {
        let ports = if object::list(o, "/spec/tls").is_empty() { "80" } else { "80, 443" };
        vec![
            name(o),
            none_if_empty(object::text(o, "/spec/ingressClassName")),
            hosts(o),
            address(o),
            ports.into(),
            age(o, now),
        ]
    },
};

fn hosts(ingress: &Value) -> Value {
    let hosts = object::list(ingress, "/spec/rules").iter().map(|r| object::text(r, "/host").to_owned());
    let hosts: Vec<String> = hosts.filter(|h| !h.is_empty()).collect();
    if hosts.is_empty() { "*".into() } else { joined(hosts) }
}

fn address(ingress: &Value) -> Value {
    let all = object::list(ingress, "/status/loadBalancer/ingress").iter().map(|i| {
        let ip = object::text(i, "/ip");
        if ip.is_empty() { object::text(i, "/hostname").to_owned() } else { ip.to_owned() }
    });
    all.collect::<Vec<_>>().join(",").into()
}

/// IngressClasses.
pub(crate) static INGRESS_CLASS: Table = Table {
    columns: &[text("Name"), text("Controller"), text("Parameters"), text("Age")],
    cells: |o, now| {
        let parameters = object::text(o, "/spec/parameters/name");
        vec![name(o), object::text(o, "/spec/controller").into(), none_if_empty(parameters), age(o, now)]
    },
};

/// NetworkPolicies.
pub(crate) static NETWORK_POLICY: Table = Table {
    columns: &[text("Name"), text("Pod-Selector"), text("Age")],
    cells: |o, now| vec![name(o), selector(&o["spec"]["podSelector"]), age(o, now)],
};
