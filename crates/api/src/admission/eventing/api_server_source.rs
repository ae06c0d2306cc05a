//! ApiServerSource.

use serde_json::Value;

use super::{
    super::{Context, json},
    filter,
    reference::Scope,
    source,
};
use crate::{
    field_error::{FieldError, FieldErrors},
    sources::{REFERENCE_MODE, RESOURCE_MODE},
};

pub(in super::super) fn default(new: &mut Value) {
    let Some(spec) = json::object_mut(new, "spec") else { return };
    for (key, value) in [("mode", REFERENCE_MODE), ("serviceAccountName", "default")] {
        if json::is_blank(json::member(spec, key)) {
            json::set(spec, key, value);
        }
    }
}

pub(in super::super) fn validate(new: &Value, context: &Context<'_>) -> FieldErrors {
    let features = &context.eventing.features;
    let spec = json::member(new, "spec");
    let mut errors = FieldErrors::none();
    let mode = json::text(spec, "mode");
    if mode != REFERENCE_MODE && mode != RESOURCE_MODE {
        errors.push(FieldError::invalid(mode, "mode"));
    }
    let resources = json::list(spec, "resources");
    if resources.is_empty() {
        errors.push(FieldError::missing(&["resources"]));
    }
    for (at, resource) in resources.iter().enumerate() {
        errors.also(validate_kind(resource).via_field_index("resources", at));
    }
    if json::has(spec, "owner") {
        errors.also(validate_kind(json::member(spec, "owner")).via_field("owner"));
    }
    errors.also(source::validate(spec, Scope::anywhere(features)));
    let filters = json::list(spec, "filters");
    if features.new_api_server_source_filters.is_enabled() {
        errors.also(filter::validate(filters).via_field("filters"));
    } else if !filters.is_empty() {
        let message = "Filters is not empty but the NewAPIServerFilters feature is disabled.";
        errors.push(FieldError::new(message, &[]));
    }
    errors.via_field("spec")
}

fn validate_kind(named: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let api_version = json::text(named, "apiVersion");
    if api_version.matches('/').count() > 1 {
        errors.push(FieldError::invalid(api_version, "apiVersion"));
    }
    if json::text(named, "kind").trim().is_empty() {
        errors.push(FieldError::missing(&["kind"]));
    }
    errors
}
