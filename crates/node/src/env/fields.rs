//! Fields of the pod and of its resources, told to its own containers (the downward API).

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};

use super::{EnvError, Inputs};
use crate::resources;
use knoll_api::quantity::Quantity;

/// The value of a field, by its path.
///
/// # Errors
/// When the path is none that can be told.
pub fn field(path: &str, inputs: &Inputs<'_>) -> Result<String, EnvError> {
    let meta = &inputs.pod.metadata;
    let spec = inputs.pod.spec.as_ref();
    let plain = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(EnvError::Field(path.to_owned())),
        };
        return Ok(plain(map.and_then(|m| m.get(key))));
    }
    Ok(match path {
        "metadata.name" => plain(meta.name.as_ref()),
        "metadata.namespace" => plain(meta.namespace.as_ref()),
        "metadata.uid" => plain(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => inputs.node_name.to_owned(),
        "spec.serviceAccountName" => plain(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => inputs.host_ip.to_owned(),
        "status.podIP" | "status.podIPs" => inputs.pod_ip.to_owned(),
        _ => return Err(EnvError::Field(path.to_owned())),
    })
}

/// `map['key']` as its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((map, key))
}

/// `key="value"` lines, sorted by key.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", go_quote(v))).collect();
    lines.join("\n")
}

/// A text in double quotes, escaped as Go escapes it.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                write!(out, "\\x{:02x}", u32::from(c)).expect("writing to a string cannot fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a resource field of `container` (or of the container it names), in divisors, rounded up. A limit that
/// is not set is what the machine offers; a request that is not set is the limit, or nothing.
///
/// # Errors
/// When the container or the resource does not exist, or a quantity cannot be read.
pub fn resource_field(
    reference: &ResourceFieldSelector,
    container: &Container,
    inputs: &Inputs<'_>,
) -> Result<String, EnvError> {
    let named = reference.container_name.as_deref().filter(|n| !n.is_empty());
    let container = match named {
        None => container,
        Some(name) => {
            let spec = inputs.pod.spec.iter();
            let mut all = spec.flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
            all.find(|c| c.name == name).ok_or_else(|| EnvError::Container(name.to_owned()))?
        }
    };
    let unsupported = || EnvError::Resource(reference.resource.clone());
    let (list, resource) = reference.resource.split_once('.').ok_or_else(unsupported)?;
    let allocatable = match resource {
        "cpu" => format!("{}m", inputs.allocatable.cpu_milli),
        "memory" => inputs.allocatable.memory_bytes.to_string(),
        "ephemeral-storage" => inputs.allocatable.ephemeral_storage_bytes.to_string(),
        _ if resource.starts_with("hugepages-") => "0".to_owned(),
        _ => return Err(unsupported()),
    };
    let asked = container.resources.as_ref();
    let unreadable = |source| EnvError::Quantity { what: reference.resource.clone(), source };
    let limit = resources::read(asked.and_then(|r| r.limits.as_ref()), resource).map_err(|e| unreadable(e.source))?;
    let value = match list {
        "limits" => limit.map_or_else(|| Quantity::parse(&allocatable), Ok).map_err(unreadable)?,
        "requests" => resources::read(asked.and_then(|r| r.requests.as_ref()), resource)
            .map_err(|e| unreadable(e.source))?
            .or(limit)
            .unwrap_or(Quantity::ZERO),
        _ => return Err(unsupported()),
    };
    let divisor = reference.divisor.as_ref().map_or(Ok(Quantity::ZERO), |text| text.0.parse()).map_err(unreadable)?;
    Ok(value.divided_by(divisor).to_string())
}
