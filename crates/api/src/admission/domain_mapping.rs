//! DomainMapping.

use serde_json::Value;

use super::{Context, Operation, json, metadata};
use crate::{
    config::CLUSTER_DOMAIN,
    field_error::{FieldError, FieldErrors},
    syntax,
};

pub(super) fn default(operation: Operation, new: &mut Value, old: Option<&Value>, context: &Context<'_>) {
    let old = old.map(|old| {
        let mut old = old.clone();
        set_namespace(&mut old);
        old
    });
    set_namespace(new);
    metadata::set_user_info(operation, new, old.as_ref(), context);
}

/// What is referred to lives in the same namespace.
fn set_namespace(object: &mut Value) {
    let namespace = json::at(object, &["metadata", "namespace"]).as_str().unwrap_or_default().to_owned();
    let reference = json::object_mut(object, "spec").and_then(|spec| json::object_mut(spec, "ref"));
    if let Some(reference) = reference.filter(|r| json::text(r, "namespace").is_empty() && !namespace.is_empty()) {
        json::set(reference, "namespace", namespace);
    }
}

pub(super) fn validate(new: &Value, old: Option<&Value>) -> FieldErrors {
    let meta = json::member(new, "metadata");
    let mut of_meta = validate_name(meta);
    if let Some(old) = old {
        of_meta.also(metadata::validate_creator_and_modifier(old, new).via_field("annotations"));
    }
    let mut errors = of_meta.via_field("metadata");
    let reference = json::at(new, &["spec", "ref"]);
    errors.also(validate_reference(reference, json::text(meta, "namespace")).via_field("spec.ref"));
    errors
}

fn validate_name(meta: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    if !json::text(meta, "generateName").is_empty() {
        errors.push(FieldError::disallowed(&["generateName"]));
    }
    let name = json::text(meta, "name");
    for problem in syntax::fully_qualified_domain(name) {
        errors.push(FieldError::new(format!("invalid name {name:?}: name: {problem}"), &["name"]));
    }
    if name.strip_suffix(CLUSTER_DOMAIN).is_some_and(|rest| rest.ends_with('.')) {
        let message =
            format!("invalid name {name:?}: must not be a subdomain of cluster local domain {CLUSTER_DOMAIN:?}");
        errors.push(FieldError::new(message, &["name"]));
    }
    errors
}

fn validate_reference(reference: &Value, parent: &str) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for key in ["name", "apiVersion", "kind"] {
        if json::text(reference, key).is_empty() {
            errors.push(FieldError::missing(&[key]));
        }
    }
    if !json::text(reference, "group").is_empty() {
        errors.push(FieldError::disallowed(&["group"]));
    }
    let namespace = json::text(reference, "namespace");
    if !namespace.is_empty() && !parent.is_empty() && namespace != parent {
        let details = format!("parent namespace: {parent:?} does not match ref: {namespace:?}");
        errors.push(FieldError::new("mismatched namespaces", &["namespace"]).with_details(details));
    }
    errors
}
