//! ContainerSource.

use serde_json::Value;

use super::{
    super::{Context, json},
    reference::Scope,
    source,
};
use crate::field_error::{FieldError, FieldErrors};

pub(in super::super) fn default(new: &mut Value) {
    let name = json::text(json::member(new, "metadata"), "name").to_owned();
    let containers = new.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    for (at, container) in containers.into_iter().flatten().enumerate() {
        if json::text(container, "name").is_empty() {
            json::set(container, "name", format!("{name}-{at}"));
        }
    }
}

pub(in super::super) fn validate(new: &Value, context: &Context<'_>) -> FieldErrors {
    let spec = json::member(new, "spec");
    let mut errors = source::validate(spec, Scope::anywhere(&context.eventing.features));
    let containers = json::list(json::at(spec, &["template", "spec"]), "containers");
    if containers.is_empty() {
        errors.push(FieldError::missing(&["containers"]));
    }
    for (at, container) in containers.iter().enumerate() {
        let missing = ["name", "image"].into_iter().filter(|key| json::text(container, key).is_empty());
        let missing: FieldErrors = missing.map(|key| FieldError::missing(&[key])).collect();
        errors.also(missing.via_field_index("containers", at));
    }
    errors.via_field("spec")
}
