//! Knative's own ConfigMaps are checked before they are stored: a bad one would be ignored later.

use std::collections::BTreeMap;

use knoll_api::labels::{EVENTING_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE};
use serde_json::Value;

use super::Admission;
use crate::{object, status::Status};

/// Refuses a configuration that cannot be read.
pub(crate) fn admit(admission: &mut Admission<'_>, object: &mut Value) -> Result<(), Status> {
    let namespace = admission.namespace;
    if ![SYSTEM_NAMESPACE, EVENTING_SYSTEM_NAMESPACE].contains(&namespace) {
        return Ok(());
    }
    let strings = |map: &Value| -> BTreeMap<String, String> {
        let pairs = map.as_object().into_iter().flatten();
        pairs.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
    };
    let (data, annotations) = (strings(&object["data"]), strings(&object["metadata"]["annotations"]));
    let verdict = knoll_api::admission::validate_config_map(namespace, object::name(object), &data, &annotations);
    verdict.map_err(|error| Status::bad_request(knoll_api::admission::config_map_denial(namespace, &error)))
}
