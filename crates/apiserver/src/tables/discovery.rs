//! `discovery.k8s.io`.

use serde_json::Value;

use super::{Table, age, name, none_if_empty, text};
use crate::object;

/// EndpointSlices.
pub(crate) static ENDPOINT_SLICE: Table = Table {
    columns: &[text("Name"), text("AddressType"), text("Ports"), text("Endpoints"), text("Age")],
    cells: |o, now| {
        let ports = object::list(o, "/ports").iter().map(|p| p["port"].as_i64().map_or("*".into(), |n| n.to_string()));
        let endpoints = object::list(o, "/endpoints").iter();
        let addresses =
            endpoints.flat_map(|e| object::list(e, "/addresses")).filter_map(Value::as_str).map(str::to_owned);
        vec![
            name(o),
            object::text(o, "/addressType").into(),
            unset_if_none(few(ports)),
            unset_if_none(few(addresses)),
            age(o, now),
        ]
    },
};

fn few(items: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = items.collect();
    let more = all.len().saturating_sub(3);
    all.truncate(3);
    let text = all.join(",");
    if more > 0 { format!("{text} + {more} more...") } else { text }
}

fn unset_if_none(text: String) -> Value {
    if text.is_empty() { "<unset>".into() } else { none_if_empty(&text) }
}
