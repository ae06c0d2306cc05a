//! References to objects of the same namespace.

use serde_json::Value;

use super::json;
use crate::{
    field_error::{FieldError, FieldErrors},
    syntax,
};

/// Checks that a reference says what and which, and nothing else.
pub(super) fn validate(reference: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for key in ["namespace", "uid", "resourceVersion", "fieldPath"] {
        if !json::text(reference, key).is_empty() {
            errors.push(FieldError::disallowed(&[key]));
        }
    }
    for key in ["apiVersion", "kind", "name"] {
        let value = json::text(reference, key);
        let problems = match key {
            "apiVersion" => syntax::qualified_name(value),
            "kind" => syntax::identifier(value),
            _ => syntax::dns1123_label(value),
        };
        if value.is_empty() {
            errors.push(FieldError::missing(&[key]));
        } else if !problems.is_empty() {
            errors.push(FieldError::invalid(problems.join(", "), key));
        }
    }
    errors
}

/// Checks the protocol an application speaks.
pub(super) fn validate_protocol(owner: &Value) -> Option<FieldError> {
    match json::text(owner, "protocolType") {
        "http1" | "h2c" => None,
        "" => Some(FieldError::missing(&["protocolType"])),
        other => Some(FieldError::invalid(other, "protocolType")),
    }
}
