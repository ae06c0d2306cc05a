//! What every source has.

use serde_json::Value;

use super::{super::json, destination, reference::Scope};
use crate::field_error::{FieldError, FieldErrors, HERE};

/// Bytes of the names and values of all overrides. Of 128 KiB in one variable a container does not start any more.
const MOST_OVERRIDES: usize = 64 << 10;

/// Checks sink and overrides; paths are relative to the spec.
pub(super) fn validate(spec: &Value, scope: Scope<'_>) -> FieldErrors {
    let mut errors = destination::validate(json::member(spec, "sink"), scope).via_field("sink");
    let extensions = json::at(spec, &["ceOverrides", "extensions"]);
    errors.also(FieldErrors::from(validate_extensions(extensions)).via_field("ceOverrides.extensions"));
    let length: usize =
        json::texts(json::member(spec, "ceOverrides"), "extensions").iter().map(|(k, v)| k.len() + v.len()).sum();
    if length > MOST_OVERRIDES {
        let text = format!("extensions of {length} bytes together");
        let error = FieldError::new(text, &["ceOverrides.extensions"]);
        errors.push(error.with_details(format!(
            "expected at most {MOST_OVERRIDES}: they are put into the environment of containers"
        )));
    }
    errors
}

/// The first name that is none.
fn validate_extensions(extensions: &Value) -> Option<FieldError> {
    let mut names = extensions.as_object().into_iter().flatten().map(|(name, _)| name);
    let name = names.find(|name| name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()))?;
    let why = if name.is_empty() { "keys MUST NOT be empty" } else { "keys are expected to be alphanumeric" };
    Some(FieldError::invalid_key(name, HERE).with_details(why))
}
