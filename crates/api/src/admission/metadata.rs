//! Names, and the annotations that say who made and changed an object.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Context, Operation, annotations, json};
use crate::{
    autoscaling::annotations::GROUP,
    config::AutoscalerConfig,
    duration,
    field_error::{FieldError, FieldErrors, HERE},
    labels::serving,
    syntax,
};

/// Checks the metadata of a kind that must not carry autoscaling annotations.
pub(super) fn validate_without_autoscaling(metadata: &Value) -> FieldErrors {
    let mut errors = validate_name(metadata);
    let mut found = FieldErrors::none();
    for key in json::texts(metadata, "annotations").keys().filter(|key| key.starts_with(GROUP)) {
        found.push(
            FieldError::invalid_key(key, HERE).with_details(
                "autoscaling annotations must be put under \"spec.template.metadata.annotations\" to work",
            ),
        );
    }
    errors.also(found.via_field("annotations"));
    errors
}

/// Checks the metadata of a kind that may carry autoscaling annotations.
pub(super) fn validate_with_autoscaling(metadata: &Value, config: &AutoscalerConfig) -> FieldErrors {
    let mut errors = validate_name(metadata);
    errors.also(annotations::validate(&json::texts(metadata, "annotations"), config).via_field("annotations"));
    errors
}

fn validate_name(metadata: &Value) -> FieldErrors {
    let (name, generate_name) = (json::text(metadata, "name"), json::text(metadata, "generateName"));
    if !generate_name.is_empty() {
        let problems = syntax::dns1035_label_prefix(generate_name);
        if !problems.is_empty() {
            let message = format!("not a DNS 1035 label prefix: {}", bracketed(&problems));
            return FieldError::new(message, &["generateName"]).into();
        }
    }
    if !name.is_empty() {
        let problems = syntax::dns1035_label(name);
        if !problems.is_empty() {
            return FieldError::new(format!("not a DNS 1035 label: {}", bracketed(&problems)), &["name"]).into();
        }
    }
    if name.is_empty() && generate_name.is_empty() {
        return FieldError::new("name or generateName is required", &["name"]).into();
    }
    FieldErrors::none()
}

/// Problems as messages quote them.
pub(super) fn bracketed(problems: &[String]) -> String {
    format!("[{}]", problems.join(" "))
}

/// Checks an annotation that holds whole, non-negative seconds; `what` names it in messages.
pub(super) fn validate_seconds(annotations: &BTreeMap<String, String>, keys: &[&str], what: &str) -> FieldErrors {
    let found = keys.iter().find_map(|&key| Some((key, annotations.get(key)?.as_str())));
    let Some((key, value)) = found.filter(|(_, value)| !value.is_empty()) else { return FieldErrors::none() };
    match duration::parse(value) {
        Err(_) => FieldError::invalid(value, key).into(),
        Ok(span) if span % duration::SECOND != 0 => {
            FieldError::new(format!("{what}={value} is not at second precision"), &[key]).into()
        }
        Ok(span) if span < 0 => FieldError::new(format!("{what}={value} must be positive"), &[key]).into(),
        Ok(_) => FieldErrors::none(),
    }
}

/// Checks the rollout duration of a Service or Route.
pub(super) fn validate_rollout_duration(metadata: &Value) -> FieldErrors {
    let keys = [serving::ROLLOUT_DURATION, "serving.knative.dev/rolloutDuration"];
    validate_seconds(&json::texts(metadata, "annotations"), &keys, "rollout-duration")
}

/// Checks that a label naming an owner of `kind` tells the truth.
pub(super) fn validate_owner_label(metadata: &Value, label: &str, kind: &str) -> FieldErrors {
    let Some(owner) = json::at(metadata, &["labels", label]).as_str() else { return FieldErrors::none() };
    let references = json::list(metadata, "ownerReferences");
    if references.iter().any(|r| json::text(r, "kind") == kind && json::text(r, "name") == owner) {
        return FieldErrors::none();
    }
    FieldErrors::from(FieldError::missing(&[label])).via_field("labels")
}

/// Whether anything owns the object.
pub(super) fn is_owned(object: &Value) -> bool {
    !json::list(json::member(object, "metadata"), "ownerReferences").is_empty()
}

/// Checks that the creator stays, and that the last modifier changes only with the spec. Paths are relative to the
/// annotations.
pub(super) fn validate_creator_and_modifier(old: &Value, new: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let (before, after) = (json::annotations(old), json::annotations(new));
    if before.get(serving::CREATOR) != after.get(serving::CREATOR) {
        errors.push(FieldError::new("annotation value is immutable", &[serving::CREATOR]));
    }
    let modifier = after.get(serving::LAST_MODIFIER);
    let spec_is_same = json::same(json::member(old, "spec"), json::member(new, "spec"));
    if spec_is_same && before.get(serving::LAST_MODIFIER) != modifier {
        let value = modifier.map(String::as_str).unwrap_or_default();
        errors.push(FieldError::invalid(value, serving::LAST_MODIFIER));
    }
    errors
}

/// Records who made the object, or who changed its spec. `old` has been filled in.
pub(super) fn set_user_info(operation: Operation, new: &mut Value, old: Option<&Value>, context: &Context<'_>) {
    let is_update = operation == Operation::Update;
    if is_update && old.is_some_and(|old| json::same(json::member(old, "spec"), json::member(new, "spec"))) {
        return;
    }
    let Some(annotations) =
        json::object_mut(new, "metadata").and_then(|metadata| json::object_mut(metadata, "annotations"))
    else {
        return;
    };
    if !is_update {
        json::set(annotations, serving::CREATOR, context.user);
    }
    json::set(annotations, serving::LAST_MODIFIER, context.user);
}
