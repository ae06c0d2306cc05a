//! The template of revisions, and their spec.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Context, annotations, diff, json, metadata, pod};
use crate::{
    config::DefaultsConfig,
    field_error::{FieldError, FieldErrors, HERE},
    labels::serving,
    syntax,
};

/// Checks a template; `parent` is the metadata of the object that holds it.
pub(super) fn validate(template: &Value, parent: &Value, context: &Context<'_>) -> FieldErrors {
    let meta = json::member(template, "metadata");
    let mut errors = validate_spec(json::member(template, "spec"), context).via_field("spec");
    errors.also(validate_annotations(&json::texts(meta, "annotations"), context).via_field("metadata.annotations"));
    errors.also(validate_name(meta, parent));
    errors
}

fn validate_annotations(found: &BTreeMap<String, String>, context: &Context<'_>) -> FieldErrors {
    let mut errors = annotations::validate(found, &context.config.autoscaler);
    errors.also(annotations::validate_networking(found));
    errors.also(annotations::validate_queue_resources(found));
    errors.also(metadata::validate_seconds(found, &[serving::PROGRESS_DEADLINE], "progress-deadline"));
    errors
}

/// Checks the name a user gives a revision.
fn validate_name(meta: &Value, parent: &Value) -> Option<FieldError> {
    let (name, generate_name) = (json::text(meta, "name"), json::text(meta, "generateName"));
    if !generate_name.is_empty() {
        let problems = syntax::dns1035_label_prefix(generate_name);
        if !problems.is_empty() {
            let value = format!("not a DNS 1035 label prefix: {}", metadata::bracketed(&problems));
            return Some(FieldError::invalid(value, "metadata.generateName"));
        }
    }
    if name.is_empty() {
        return None;
    }
    let problems = syntax::dns1035_label(name);
    if !problems.is_empty() {
        let value = format!("not a DNS 1035 label: {}", metadata::bracketed(&problems));
        return Some(FieldError::invalid(value, "metadata.name"));
    }
    let parent_name = json::text(parent, "name");
    // While the parent has no name yet, nobody can know the prefix.
    if parent_name.is_empty() && !json::text(parent, "generateName").is_empty() {
        return Some(FieldError::disallowed(&["metadata.name"]));
    }
    let prefix = format!("{parent_name}-");
    let fits = name.starts_with(&prefix);
    (!fits).then(|| FieldError::invalid(format!("{name:?} must have prefix {prefix:?}"), "metadata.name"))
}

/// Checks that a template which keeps its user-given name keeps everything else too.
pub(super) fn validate_name_change(old: &Value, new: &Value) -> FieldErrors {
    let path = ["spec", "template"];
    let (old, new) = (json::at(old, &path), json::at(new, &path));
    let name = json::text(json::member(new, "metadata"), "name");
    if name.is_empty() || name != json::text(json::member(old, "metadata"), "name") {
        return FieldErrors::none();
    }
    let changes = diff::short("{*v1.RevisionTemplateSpec}", old, new);
    if changes.is_empty() {
        return FieldErrors::none();
    }
    FieldError::new("Saw the following changes without a name change (-old +new)", &["spec.template.metadata.name"])
        .with_details(changes)
        .into()
}

/// Checks the spec of a revision.
pub(super) fn validate_spec(spec: &Value, context: &Context<'_>) -> FieldErrors {
    let defaults = &context.config.defaults;
    let mut errors = pod::validate(spec, &context.config.features);
    let timeout = json::int(spec, "timeoutSeconds");
    if timeout < 0 || timeout > defaults.max_revision_timeout_seconds {
        let max = defaults.max_revision_timeout_seconds;
        errors.push(FieldError::out_of_bounds(timeout, 0, max, "timeoutSeconds"));
    }
    if let Some(concurrency) = json::member(spec, "containerConcurrency").as_i64() {
        errors.also(validate_concurrency(concurrency, defaults).via_field("containerConcurrency"));
    }
    errors
}

/// Checks a container concurrency.
pub(super) fn validate_concurrency(concurrency: i64, defaults: &DefaultsConfig) -> FieldErrors {
    let least = i64::from(!defaults.allow_container_concurrency_zero);
    let most = defaults.container_concurrency_max_limit;
    let is_out = !(least..=most).contains(&concurrency);
    is_out.then(|| FieldError::out_of_bounds(concurrency, least, most, HERE)).into()
}
