//! Services get their addresses and node ports.

use std::collections::{HashMap, HashSet};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::{Admission, endpoints};
use crate::{
    addresses::Refused,
    object,
    status::{Cause, Status},
};

/// Hands out what the Service needs and does not have.
pub(crate) fn admit<'a>(admission: &'a mut Admission<'_>, service: &'a mut Value) -> BoxFuture<'a, Result<(), Status>> {
    Box::pin(hand_out(admission, service))
}

async fn hand_out(admission: &mut Admission<'_>, service: &mut Value) -> Result<(), Status> {
    keep_assigned(admission.old, service);
    endpoints::external(admission, service).await?;
    let kind = object::text(service, "/spec/type").to_owned();
    if kind == "ExternalName" {
        let spec = object::map_at(service, "spec");
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            spec.remove(field);
        }
        return Ok(());
    }
    cluster_ip(admission, service)?;
    if kind == "NodePort" || kind == "LoadBalancer" {
        node_ports(admission, service)?;
    }
    Ok(())
}

/// An update that leaves out what was assigned keeps it.
fn keep_assigned(old: Option<&Value>, service: &mut Value) {
    let Some(old) = old else { return };
    let new_type = object::text(service, "/spec/type").to_owned();
    if new_type == "ExternalName" || object::text(old, "/spec/type") == "ExternalName" {
        return;
    }
    // Of equal ones the first.
    let assigned: HashMap<_, &Value> =
        object::list(old, "/spec/ports").iter().rev().map(|port| (place(port), port)).collect();
    let spec = object::map_at(service, "spec");
    for field in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
        if object::is_empty(spec.get(field)) && !object::is_empty(old["spec"].get(field)) {
            spec.insert(field.into(), old["spec"][field].clone());
        }
    }
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
    for port in ports {
        let was = assigned.get(&place(port));
        if new_type == "ClusterIP" {
            // Left over from the type it had.
            if was.is_some_and(|w| w["nodePort"] == port["nodePort"])
                && let Some(map) = port.as_object_mut()
            {
                map.remove("nodePort");
            }
            continue;
        }
        if object::integer(port, "/nodePort").unwrap_or(0) == 0
            && let Some(was) = was.filter(|was| was["nodePort"].is_i64())
        {
            port["nodePort"] = was["nodePort"].clone();
        }
    }
}

/// What tells a port of a Service from its others.
fn place(port: &Value) -> (Option<i64>, String) {
    (port["port"].as_i64(), object::text(port, "/protocol").to_owned())
}

fn cluster_ip(admission: &mut Admission<'_>, service: &mut Value) -> Result<(), Status> {
    let had = admission.old.map(|o| object::text(o, "/spec/clusterIP")).unwrap_or_default();
    let wanted = object::text(service, "/spec/clusterIP").to_owned();
    let wanted = if wanted.is_empty() { object::text(service, "/spec/clusterIPs/0").to_owned() } else { wanted };
    let address = match wanted.as_str() {
        "None" => "None".to_owned(),
        given if !given.is_empty() && given == had => given.to_owned(),
        "" => {
            let (address, allocation) = admission
                .view
                .addresses()
                .any_address()
                .map_err(|_| Status::internal("failed to allocate a serviceIP: range is full"))?;
            admission.allocations.push(allocation);
            address.to_string()
        }
        given => {
            let refuse = |why: &str| {
                let value = json!([given]);
                let cause = Cause::invalid("spec.clusterIPs", &value, &format!("failed to allocate IP {given}: {why}"));
                admission.resource.invalid(object::name(service), vec![cause])
            };
            let parsed = given.parse().map_err(|_| refuse("must be a valid IP address"))?;
            let allocation = admission.view.addresses().address(parsed).map_err(|refused| match refused {
                Refused::Taken => refuse("provided IP is already allocated"),
                Refused::OutOfRange | Refused::Exhausted => {
                    refuse("the provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/12")
                }
            })?;
            admission.allocations.push(allocation);
            given.to_owned()
        }
    };
    let spec = object::map_at(service, "spec");
    spec.insert("clusterIP".into(), address.as_str().into());
    spec.insert("clusterIPs".into(), json!([address]));
    Ok(())
}

fn node_ports(admission: &mut Admission<'_>, service: &mut Value) -> Result<(), Status> {
    let name = object::name(service).to_owned();
    let no_ports = object::text(service, "/spec/type") == "LoadBalancer"
        && service["spec"]["allocateLoadBalancerNodePorts"] == false;
    let had: HashSet<i64> = admission
        .old
        .map(|o| object::list(o, "/spec/ports").iter().filter_map(|p| p["nodePort"].as_i64()).collect())
        .unwrap_or_default();
    let ports = service["spec"]["ports"].as_array_mut().into_iter().flatten();
    for (at, port) in ports.enumerate() {
        let wanted = object::integer(port, "/nodePort").unwrap_or(0);
        if had.contains(&wanted) || (wanted == 0 && no_ports) {
            continue;
        }
        let field = format!("spec.ports[{at}].nodePort");
        if wanted == 0 {
            let (given, allocation) = admission
                .view
                .addresses()
                .any_port()
                .map_err(|_| Status::internal("failed to allocate a nodePort: range is full"))?;
            admission.allocations.push(allocation);
            port["nodePort"] = given.into();
            continue;
        }
        let refuse =
            |why: &str| admission.resource.invalid(&name, vec![Cause::invalid(field.clone(), &wanted.into(), why)]);
        let out = "provided port is not in the valid range. The range of valid ports is 30000-32767";
        let number = u16::try_from(wanted).map_err(|_| refuse(out))?;
        let allocation = admission.view.addresses().port(number).map_err(|refused| match refused {
            Refused::Taken => refuse("provided port is already allocated"),
            Refused::OutOfRange | Refused::Exhausted => refuse(out),
        })?;
        admission.allocations.push(allocation);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(ports: usize, node_ports: bool) -> Value {
        let port = |n: usize| match node_ports {
            true => json!({"name": format!("p{n}"), "port": n, "protocol": "TCP", "nodePort": 30_000 + n}),
            false => json!({"name": format!("p{n}"), "port": n, "protocol": "TCP"}),
        };
        json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.1", "ports": (1..=ports).map(port).collect::<Vec<_>>()}})
    }

    #[test]
    fn each_of_a_hundred_thousand_ports_keeps_what_it_was_given() {
        // Ten thousand million comparisons, were each port looked for among all.
        let (old, mut new) = (service(100_000, true), service(100_000, false));
        keep_assigned(Some(&old), &mut new);
        assert_eq!(new["spec"]["ports"], old["spec"]["ports"]);
        new["spec"]["type"] = "ClusterIP".into();
        keep_assigned(Some(&old), &mut new);
        assert_eq!(new["spec"]["ports"], service(100_000, false)["spec"]["ports"]);
    }
}
