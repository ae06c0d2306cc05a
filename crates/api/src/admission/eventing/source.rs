//! What every source has.

use serde_json::Value;

use super::{super::json, destination, reference::Scope};
use crate::field_error::{FieldError, FieldErrors, HERE};

/// Checks sink and overrides; paths are relative to the spec.
pub(super) fn validate(spec: &Value, scope: Scope<'_>) -> FieldErrors {
    let mut errors = destination::validate(json::member(spec, "sink"), scope).via_field("sink");
    let extensions = json::at(spec, &["ceOverrides", "extensions"]);
    errors.also(FieldErrors::from(validate_extensions(extensions)).via_field("ceOverrides.extensions"));
    errors
}

/// The first name that is none.
fn validate_extensions(extensions: &Value) -> Option<FieldError> {
    let mut names = extensions.as_object().into_iter().flatten().map(|(name, _)| name);
    let name = names.find(|name| name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()))?;
    let why = if name.is_empty() { "keys MUST NOT be empty" } else { "keys are expected to be alphanumeric" };
    Some(FieldError::invalid_key(name, HERE).with_details(why))
}
