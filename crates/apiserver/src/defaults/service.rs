//! Services.

use serde_json::{Value, json};

use super::each;
use crate::object::{self, default as set};

/// A cluster address over TCP, the target port that of the port.
pub(crate) fn default(service: &mut Value) {
    let spec = super::spec(service);
    set(spec, "type", "ClusterIP");
    set(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        spec.entry("sessionAffinityConfig").or_insert_with(|| json!({"clientIP": {"timeoutSeconds": 10800}}));
    } else {
        spec.remove("sessionAffinityConfig");
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    let headless = spec.get("clusterIP").and_then(Value::as_str) == Some("None");
    for port in each(spec, "ports") {
        set(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or(Value::Null);
        let unset = port.get("targetPort").is_none_or(|t| *t == 0 || *t == "" || t.is_null());
        if unset && !number.is_null() {
            port.insert("targetPort".into(), number);
        }
    }
    if kind != "ExternalName" {
        set(spec, "internalTrafficPolicy", "Cluster");
        set(spec, "ipFamilyPolicy", "SingleStack");
        if object::is_empty(spec.get("ipFamilies")) {
            spec.insert("ipFamilies".into(), json!(["IPv4"]));
        }
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        set(spec, "externalTrafficPolicy", "Cluster");
    } else {
        spec.remove("externalTrafficPolicy");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    } else {
        spec.remove("allocateLoadBalancerNodePorts");
    }
    if headless {
        spec.insert("clusterIPs".into(), json!(["None"]));
    }
    let status = object::map_at(service, "status");
    status.entry("loadBalancer").or_insert_with(|| json!({}));
}
