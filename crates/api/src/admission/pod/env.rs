//! Environment variables.

use serde_json::Value;

use super::{ContainerType, json, mask};
use crate::{
    config::Features,
    field_error::{FieldError, FieldErrors},
};

/// Names that the platform sets itself.
const RESERVED: [&str; 3] = ["K_SERVICE", "K_CONFIGURATION", "K_REVISION"];

pub(super) fn validate(variables: &[Value], kind: ContainerType, features: &Features) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for (at, variable) in variables.iter().enumerate() {
        let name = json::text(variable, "name");
        let mut found = FieldErrors::none();
        // Only the container that serves is told its port.
        let is_reserved = RESERVED.contains(&name) || (name == "PORT" && kind == ContainerType::Serving);
        if name.is_empty() {
            found.push(FieldError::missing(&["name"]));
        } else if is_reserved {
            found.push(FieldError::new(format!("{name:?} is a reserved environment variable"), &["name"]));
        }
        found.also(mask::env_source(json::member(variable, "valueFrom"), features).via_field("valueFrom"));
        errors.also(found.via_index(at));
    }
    errors
}

/// Checks the maps and secrets that whole sets of variables come from.
pub(super) fn validate_sources(sources: &[Value]) -> FieldErrors {
    const KINDS: [&str; 2] = ["configMapRef", "secretRef"];
    let mut errors = FieldErrors::none();
    for source in sources {
        match KINDS.iter().filter(|kind| json::has(source, kind)).count() {
            0 => errors.push(FieldError::none_of(&KINDS)),
            1 => {}
            _ => errors.push(FieldError::several_of(&KINDS)),
        }
    }
    errors
}
