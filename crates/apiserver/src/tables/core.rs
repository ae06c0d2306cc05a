//! The core group, except pods.

use serde_json::Value;

use super::{Table, age, joined, name, none_if_empty, number, pairs, text, wide};
use crate::object;

/// Namespaces.
pub(crate) static NAMESPACE: Table = Table {
    columns: &[text("Name"), text("Status"), text("Age")],
    cells: |o, now| vec![name(o), object::text(o, "/status/phase").into(), age(o, now)],
};

/// ConfigMaps.
pub(crate) static CONFIG_MAP: Table = Table {
    columns: &[text("Name"), text("Data"), text("Age")],
    cells: |o, now| vec![name(o), (size(&o["data"]) + size(&o["binaryData"])).into(), age(o, now)],
};

/// Secrets.
pub(crate) static SECRET: Table = Table {
    columns: &[text("Name"), text("Type"), number("Data"), text("Age")],
    cells: |o, now| vec![name(o), object::text(o, "/type").into(), size(&o["data"]).into(), age(o, now)],
};

fn size(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

/// Services.
pub(crate) static SERVICE: Table = Table {
    columns: &[
        text("Name"),
        text("Type"),
        text("Cluster-IP"),
        text("External-IP"),
        text("Port(s)"),
        text("Age"),
        wide("Selector"),
    ],
    cells: |o, now| {
        let cluster_ip = none_if_empty(object::text(o, "/spec/clusterIP"));
        vec![
            name(o),
            o["spec"]["type"].clone(),
            cluster_ip,
            external_ip(o),
            ports(o),
            age(o, now),
            pairs(&o["spec"]["selector"]),
        ]
    },
};

fn external_ip(service: &Value) -> Value {
    let listed = object::list(service, "/spec/externalIPs").iter().filter_map(Value::as_str).map(str::to_owned);
    match object::text(service, "/spec/type") {
        "ExternalName" => none_if_empty(object::text(service, "/spec/externalName")),
        "LoadBalancer" => {
            let balancers = object::list(service, "/status/loadBalancer/ingress").iter().map(|i| {
                let ip = object::text(i, "/ip");
                if ip.is_empty() { object::text(i, "/hostname").to_owned() } else { ip.to_owned() }
            });
            let all: Vec<String> = balancers.chain(listed).collect();
            if all.is_empty() { "<pending>".into() } else { joined(all) }
        }
        _ => joined(listed),
    }
}

fn ports(service: &Value) -> Value {
    joined(object::list(service, "/spec/ports").iter().map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        match port["nodePort"].as_i64().filter(|&n| n > 0) {
            Some(node_port) => format!("{}:{node_port}/{protocol}", port["port"]),
            None => format!("{}/{protocol}", port["port"]),
        }
    }))
}

/// Endpoints.
pub(crate) static ENDPOINTS: Table = Table {
    columns: &[text("Name"), text("Endpoints"), text("Age")],
    cells: |o, now| vec![name(o), addresses(o), age(o, now)],
};

fn addresses(endpoints: &Value) -> Value {
    let mut all = Vec::new();
    for subset in object::list(endpoints, "/subsets") {
        let ports = object::list(subset, "/ports");
        for address in object::list(subset, "/addresses") {
            let ip = object::text(address, "/ip");
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{ip}:{}", port["port"])));
        }
    }
    let more = all.len().saturating_sub(3);
    all.truncate(3);
    let text = all.join(",");
    if more > 0 { format!("{text} + {more} more...").into() } else { none_if_empty(&text) }
}

/// Nodes.
pub(crate) static NODE: Table = Table {
    columns: &[
        text("Name"),
        text("Status"),
        text("Roles"),
        text("Age"),
        text("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    cells: |o, now| {
        let info = |key: &str| unknown_if_empty(object::text(o, &format!("/status/nodeInfo/{key}")));
        vec![
            name(o),
            node_status(o),
            roles(o),
            age(o, now),
            object::text(o, "/status/nodeInfo/kubeletVersion").into(),
            node_address(o, "InternalIP"),
            node_address(o, "ExternalIP"),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    },
};

fn unknown_if_empty(text: &str) -> Value {
    if text.is_empty() { "<unknown>".into() } else { text.into() }
}

fn node_status(node: &Value) -> Value {
    let ready = object::list(node, "/status/conditions").iter().find(|c| c["type"] == "Ready");
    let mut status = match ready.map(|c| object::text(c, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

fn roles(node: &Value) -> Value {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let role = |(key, value): (&String, &Value)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) if !role.is_empty() => Some(role.to_owned()),
        _ if key == "kubernetes.io/role" => value.as_str().map(str::to_owned),
        _ => None,
    };
    joined(labels.filter_map(role))
}

fn node_address(node: &Value, kind: &str) -> Value {
    let found = object::list(node, "/status/addresses").iter().find(|a| a["type"] == kind);
    none_if_empty(found.map(|a| object::text(a, "/address")).unwrap_or_default())
}
