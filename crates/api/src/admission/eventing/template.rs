//! What channels are made from.

use serde_json::Value;

use super::super::{Context, json};
use crate::field_error::{FieldError, FieldErrors};

/// Fills in a template that a spec does not have, by what is said of a namespace; of the cluster, for an empty name.
/// Returns whether it did.
pub(super) fn default(spec: &mut Value, namespace: &str, context: &Context<'_>) -> bool {
    if json::has(spec, "channelTemplate") {
        return false;
    }
    let template = context.eventing.channel_defaults.template(namespace);
    if let Some(template) = template.and_then(|template| serde_json::to_value(template).ok()) {
        json::set(spec, "channelTemplate", template);
    }
    true
}

/// Checks the template of a spec; paths are relative to the spec.
pub(super) fn validate(spec: &Value) -> FieldErrors {
    let template = json::member(spec, "channelTemplate");
    if template.is_null() {
        return FieldError::missing(&["channelTemplate"]).into();
    }
    let missing = ["kind", "apiVersion"].into_iter().filter(|key| json::text(template, key).is_empty());
    missing.map(|key| FieldError::missing(&[key])).collect::<FieldErrors>().via_field("channelTemplate")
}
