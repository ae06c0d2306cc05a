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
    let checks: [(&str, fn(&str) -> Vec<String>); 3] =
        [("apiVersion", syntax::qualified_name), ("kind", syntax::identifier), ("name", syntax::dns1123_label)];
    for (key, check) in checks {
        let value = json::text(reference, key);
        let problems = check(value);
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
