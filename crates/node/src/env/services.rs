//! Addresses of Services as variables, `KUBERNETES_SERVICE_HOST` first of all.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};

/// Where the API server is, seen from pods.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// The variables that `services` make for `pod`: those of `default/kubernetes` always, those of the pod's own
/// namespace unless it turned links off. Headless Services and those without an address make none.
pub fn service_variables(services: &[Arc<Service>], pod: &Pod) -> BTreeMap<String, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let mut out = BTreeMap::new();
    // The API server comes last, so that no Service of the pod's namespace takes its name.
    let (master, others): (Vec<_>, Vec<_>) = services.iter().partition(|s| {
        s.metadata.namespace.as_deref() == Some(MASTER.0) && s.metadata.name.as_deref() == Some(MASTER.1)
    });
    let own = others.into_iter().filter(|s| links && s.metadata.namespace.as_deref() == Some(namespace));
    for service in own.chain(master) {
        tell(service, &mut out);
    }
    out
}

fn tell(service: &Service, out: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let Some(address) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let name = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    out.insert(format!("{name}_SERVICE_HOST"), address.to_owned());
    out.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.insert(format!("{name}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string());
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{address}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            out.insert(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        out.insert(prefix.clone(), url);
        out.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        out.insert(format!("{prefix}_PORT"), port.port.to_string());
        out.insert(format!("{prefix}_ADDR"), address.to_owned());
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}
