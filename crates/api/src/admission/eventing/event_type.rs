//! EventType, in each of its versions.

use serde_json::Value;

use super::{super::json, namespace, reference};
use crate::field_error::{FieldError, FieldErrors};

pub(in super::super) fn default(new: &mut Value) {
    let namespace = namespace(new).to_owned();
    if let Some(spec) = new.get_mut("spec") {
        reference::default(spec, "reference", &namespace);
    }
}

pub(in super::super) fn validate(new: &Value) -> FieldErrors {
    let spec = json::member(new, "spec");
    let errors = match json::text(new, "apiVersion").rsplit('/').next() {
        Some("v1beta3") => {
            let mut errors = FieldErrors::from(missing_attributes(spec));
            errors.also(lost_attributes(spec));
            errors.via_field("attributes")
        }
        version => {
            let mut errors = FieldErrors::none();
            if json::text(spec, "type").is_empty() {
                errors.push(FieldError::missing(&["type"]));
            }
            for key in ["source", "schema"].into_iter().filter(|_| version == Some("v1beta1")) {
                if json::member(spec, key).as_str() == Some("") {
                    errors.push(FieldError::invalid("", key).with_details(format!("{key} URI cannot be empty")));
                }
            }
            errors
        }
    };
    errors.via_field("spec")
}

fn missing_attributes(spec: &Value) -> Option<FieldError> {
    let attributes = json::list(spec, "attributes");
    let is_there = |name: &str| attributes.iter().any(|attribute| json::text(attribute, "name") == name);
    let missing: Vec<&str> =
        ["type", "source", "specversion", "id"].into_iter().filter(|name| !is_there(name)).collect();
    (!missing.is_empty()).then(|| FieldError::missing(&missing))
}

/// Tells of attributes that the stored version has no place for.
fn lost_attributes(spec: &Value) -> FieldErrors {
    const KEPT: [&str; 5] = ["id", "schemadata", "source", "specversion", "type"];
    let lost = json::list(spec, "attributes").iter().enumerate();
    let lost = lost.filter(|(_, attribute)| !KEPT.contains(&json::text(attribute, "name")));
    let message = "not kept, for only id, schemadata, source, specversion and type are stored";
    lost.map(|(at, _)| FieldError::new(message, &[&format!("[{at}]")]).as_warning()).collect()
}
