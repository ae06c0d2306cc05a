//! Services, besides their addresses (see `admission::service` and `admission::endpoints`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{addresses, core::port_number, metadata, names};
use crate::{object, status::Cause};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
/// Longest affinity of a client: a day.
const LONGEST_AFFINITY: i64 = 86_400;

/// Services.
pub(crate) fn service(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = object::text(new, "/spec/type");
    let headless = object::text(new, "/spec/clusterIP") == "None";
    if !TYPES.contains(&kind) {
        causes.push(Cause::not_supported("spec.type", &kind.into(), TYPES));
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let why = format!("may not be set to 'None' for {kind} services");
        causes.push(Cause::invalid("spec.clusterIPs[0]", &"None".into(), &why));
    }
    let listed = object::list(new, "/spec/ports");
    if kind == "ExternalName" {
        external_name(new, &mut causes);
    } else if listed.is_empty() && !headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    ports(listed, kind, &mut causes);
    metadata::labels(&new["spec"]["selector"], "spec.selector", &mut causes);
    choices(new, &mut causes);
    source_ranges(new, kind, &mut causes);
    if let Some(old) = old {
        let (was, is) = (object::text(old, "/spec/clusterIP"), object::text(new, "/spec/clusterIP"));
        if !was.is_empty() && kind != "ExternalName" && object::text(old, "/spec/type") != "ExternalName" && was != is {
            causes.push(Cause::invalid("spec.clusterIPs[0]", &is.into(), "may not change once set"));
        }
    }
    causes
}

fn external_name(new: &Value, causes: &mut Vec<Cause>) {
    let name = object::text(new, "/spec/externalName");
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    } else if let Err(why) = names::subdomain(bare) {
        causes.push(Cause::invalid("spec.externalName", &name.into(), &why));
    }
}

fn ports(ports: &[Value], kind: &str, causes: &mut Vec<Cause>) {
    let mut seen = BTreeSet::new();
    let mut seen_names = BTreeSet::new();
    for (at, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{at}].{name}");
        let name = object::name_of(port);
        if name.is_empty() {
            if ports.len() > 1 {
                causes.push(Cause::required(field("name"), ""));
            }
        } else if let Err(why) = names::label(name) {
            causes.push(Cause::invalid(field("name"), &name.into(), &why));
        } else if !seen_names.insert(name) {
            causes.push(Cause::duplicate(field("name"), &name.into()));
        }
        port_number(&port["port"], field("port"), causes);
        let protocol = object::text(port, "/protocol");
        if !PROTOCOLS.contains(&protocol) {
            causes.push(Cause::not_supported(field("protocol"), &protocol.into(), PROTOCOLS));
        }
        target(&port["targetPort"], field("targetPort"), causes);
        let node_port = port["nodePort"].as_i64().unwrap_or(0);
        if node_port != 0 && !matches!(kind, "NodePort" | "LoadBalancer") {
            let why = format!("may not be used when `type` is '{kind}'");
            causes.push(Cause::forbidden(field("nodePort"), &why));
        }
        if !seen.insert((port["port"].as_i64(), protocol)) {
            let shown = json!({"port": port["port"], "protocol": port["protocol"]});
            causes.push(Cause::duplicate(format!("spec.ports[{at}]"), &shown));
        }
    }
}

/// The port behind: a number, or the name of one.
fn target(target: &Value, field: String, causes: &mut Vec<Cause>) {
    match target {
        Value::Null => {}
        Value::String(name) => {
            if let Err(why) = names::port_name(name) {
                causes.push(Cause::invalid(field, target, &why));
            }
        }
        _ => port_number(target, field, causes),
    }
}

/// Fields with a closed set of values, and their numbers.
fn choices(new: &Value, causes: &mut Vec<Cause>) {
    for (field, known) in [
        ("sessionAffinity", &["ClientIP", "None"][..]),
        ("externalTrafficPolicy", &["Cluster", "Local"]),
        ("internalTrafficPolicy", &["Cluster", "Local"]),
        ("ipFamilyPolicy", &["SingleStack", "PreferDualStack", "RequireDualStack"]),
    ] {
        let value = object::text(new, &format!("/spec/{field}"));
        if !value.is_empty() && !known.contains(&value) {
            causes.push(Cause::not_supported(format!("spec.{field}"), &value.into(), known));
        }
    }
    families(new, causes);
    let seconds = object::integer(new, "/spec/sessionAffinityConfig/clientIP/timeoutSeconds");
    if let Some(seconds) = seconds.filter(|seconds| !(1..=LONGEST_AFFINITY).contains(seconds)) {
        let why = format!("must be greater than 0 && less than {LONGEST_AFFINITY}");
        causes.push(Cause::invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", &seconds.into(), &why));
    }
}

/// There are addresses of version 4 alone. A headless Service without a selector has none of ours: what its writer lists counts.
fn families(new: &Value, causes: &mut Vec<Cause>) {
    let headless = object::text(new, "/spec/clusterIP") == "None";
    if object::text(new, "/spec/type") == "ExternalName" || headless && object::is_empty(new.pointer("/spec/selector"))
    {
        return;
    }
    if object::text(new, "/spec/ipFamilyPolicy") == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        causes.push(Cause::invalid("spec.ipFamilyPolicy", &"RequireDualStack".into(), why));
    }
    for (at, family) in object::list(new, "/spec/ipFamilies").iter().enumerate() {
        let field = format!("spec.ipFamilies[{at}]");
        match family.as_str() {
            Some("IPv4") => {}
            Some("IPv6") => causes.push(Cause::invalid(field, family, "not configured on this cluster")),
            _ => causes.push(Cause::not_supported(field, family, &["IPv4", "IPv6"])),
        }
    }
}

fn source_ranges(new: &Value, kind: &str, causes: &mut Vec<Cause>) {
    let ranges = object::list(new, "/spec/loadBalancerSourceRanges");
    if !ranges.is_empty() && kind != "LoadBalancer" {
        let why = "may only be used when `type` is 'LoadBalancer'";
        causes.push(Cause::forbidden("spec.loadBalancerSourceRanges", why));
    }
    for (at, range) in ranges.iter().enumerate() {
        addresses::network(range, &format!("spec.loadBalancerSourceRanges[{at}]"), causes);
    }
}
