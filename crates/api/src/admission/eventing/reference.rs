//! References to objects of any kind.

use serde_json::Value;

use super::super::json;
use crate::{
    config::eventing::EventingFeatures,
    field_error::{FieldError, FieldErrors},
};

/// What references are checked by.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// What may be used.
    pub(super) features: &'a EventingFeatures,
    /// The namespace that references must stay in; they may lead anywhere when it is empty.
    pub(super) within: &'a str,
}

impl<'a> Scope<'a> {
    /// References may lead into any namespace.
    pub(super) fn anywhere(features: &'a EventingFeatures) -> Scope<'a> {
        Scope { features, within: "" }
    }
}

/// What a reference lacks is taken from where it stands.
pub(super) fn default(holder: &mut Value, key: &str, namespace: &str) {
    let Some(reference) = holder.get_mut(key).filter(|reference| reference.is_object()) else { return };
    if json::text(reference, "namespace").is_empty() && !namespace.is_empty() {
        json::set(reference, "namespace", namespace);
    }
}

/// Checks that a reference says what and which.
pub(super) fn validate(reference: &Value, scope: Scope<'_>) -> FieldErrors {
    let text = |key| json::text(reference, key);
    let mut errors = FieldErrors::none();
    if text("name").is_empty() {
        errors.push(FieldError::missing(&["name"]));
    }
    errors.also(validate_group(text("apiVersion"), text("group"), scope));
    if text("kind").is_empty() {
        errors.push(FieldError::missing(&["kind"]));
    }
    let (namespace, parent) = (text("namespace"), scope.within);
    if !namespace.is_empty() && !parent.is_empty() && namespace != parent {
        let details = format!("parent namespace: {parent:?} does not match ref: {namespace:?}");
        errors.push(FieldError::new("mismatched namespaces", &["namespace"]).with_details(details));
    }
    errors
}

fn validate_group(api_version: &str, group: &str, scope: Scope<'_>) -> FieldErrors {
    let mut errors = FieldErrors::none();
    if !scope.features.kreference_group.is_enabled() {
        if !group.is_empty() {
            errors.push(FieldError::disallowed(&["group"]));
        }
        if api_version.is_empty() {
            errors.push(FieldError::missing(&["apiVersion"]));
        }
    } else if api_version.is_empty() && group.is_empty() {
        errors.push(FieldError::missing(&["apiVersion", "group"]));
    } else if !api_version.starts_with(group) {
        let message = "both apiVersion and group are specified and they refer to different API groups";
        let details = "Only one of them must be specified";
        // Without an apiVersion there is nothing to differ from.
        if !api_version.is_empty() {
            errors.push(FieldError::new(message, &["apiVersion", "group"]).with_details(details));
        }
    }
    errors
}

/// Refuses a namespace, for what is referred to must be near.
pub(super) fn validate_near(reference: &Value, features: &EventingFeatures) -> Option<FieldError> {
    let is_far = !features.cross_namespace_event_links.is_enabled() && !json::text(reference, "namespace").is_empty();
    is_far.then(|| {
        FieldError::disallowed(&["namespace"]).with_details(
            "only name, apiVersion and kind are supported fields when feature.CrossNamespaceEventLinks is disabled",
        )
    })
}
