//! ServerlessService.

use serde_json::Value;

use super::{annotations, json, object_reference};
use crate::field_error::{FieldError, FieldErrors};

pub(super) fn validate(new: &Value) -> FieldErrors {
    let mut errors = annotations::validate_networking(&json::annotations(new)).via_field("annotations");
    let spec = json::member(new, "spec");
    if json::is_zero(spec) {
        errors.push(FieldError::missing(&["spec"]));
        return errors;
    }
    let mut of_spec = FieldErrors::none();
    match json::text(spec, "mode") {
        "Serve" | "Proxy" => {}
        "" => of_spec.push(FieldError::missing(&["mode"])),
        other => of_spec.push(FieldError::invalid(other, "mode")),
    }
    let activators = json::int(spec, "numActivators");
    if activators < 0 {
        of_spec.push(FieldError::invalid(activators, "numActivators"));
    }
    of_spec.also(object_reference::validate(json::member(spec, "objectRef")).via_field("objectRef"));
    of_spec.also(object_reference::validate_protocol(spec));
    errors.also(of_spec.via_field("spec"));
    errors
}
