//! Endpoints and EndpointSlices.

use serde_json::Value;

use super::each;
use crate::object::default as set;

/// Ports over TCP.
pub(crate) fn default(endpoints: &mut Value) {
    let Some(map) = endpoints.as_object_mut() else { return };
    for subset in each(map, "subsets") {
        for port in each(subset, "ports") {
            set(port, "protocol", "TCP");
        }
    }
}

/// Ports over TCP, with an empty name.
pub(crate) fn slice(slice: &mut Value) {
    let Some(map) = slice.as_object_mut() else { return };
    for port in each(map, "ports") {
        set(port, "protocol", "TCP");
        if !port.contains_key("name") {
            port.insert("name".into(), "".into());
        }
    }
}
