//! Shares of traffic.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{json, metadata::bracketed};
use crate::{
    field_error::{FieldError, FieldErrors, HERE},
    syntax,
};

/// Fills in the targets of a spec. In a Service, no targets mean all traffic to the latest revision.
pub(super) fn default(spec: &mut Value, in_service: bool) {
    if in_service && json::list(spec, "traffic").is_empty() && is_list_or_absent(spec) {
        json::set(spec, "traffic", json!([{"latestRevision": true, "percent": 100}]));
    }
    for target in spec.get_mut("traffic").and_then(Value::as_array_mut).into_iter().flatten() {
        let floats = json::text(target, "revisionName").is_empty();
        json::set_absent(target, "latestRevision", floats);
        json::set_absent(target, "percent", 0);
    }
}

fn is_list_or_absent(spec: &Value) -> bool {
    let traffic = json::member(spec, "traffic");
    traffic.is_null() || traffic.is_array()
}

/// Checks targets. In a Service they float over its own Configuration, which is not named.
pub(super) fn validate(targets: &[Value], in_service: bool) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let mut tags: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sum = 0_i64;
    for (at, target) in targets.iter().enumerate() {
        errors.also(validate_target(target, in_service).via_index(at));
        sum = sum.saturating_add(json::int(target, "percent"));
        let tag = json::text(target, "tag");
        if tag.is_empty() {
            continue;
        }
        let problems = syntax::dns1035_label(tag);
        if !problems.is_empty() {
            let error = FieldError::invalid(format!("not a DNS 1035 label: {}", bracketed(&problems)), HERE);
            errors.also(FieldErrors::from(error).via_field_index("tag", at));
        }
        if let Some(first) = tags.get(tag) {
            let paths = [format!("[{at}].tag"), format!("[{first}].tag")];
            errors.push(FieldError::new(format!("Multiple definitions for {tag:?}"), &[&paths[0], &paths[1]]));
        } else {
            tags.insert(tag, at);
        }
    }
    if sum != 100 {
        errors.push(FieldError::new(format!("Traffic targets sum to {sum}, want 100"), &[HERE]));
    }
    errors
}

fn validate_target(target: &Value, in_service: bool) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let revision = json::text(target, "revisionName");
    let is_pinned = !revision.is_empty();
    if let Some(latest) = json::member(target, "latestRevision").as_bool()
        && latest == is_pinned
    {
        let message = format!("may not set revisionName {revision:?} when latestRevision is {latest}");
        errors.push(FieldError::new(message, &["latestRevision"]));
    }
    errors.also(validate_names(revision, json::text(target, "configurationName"), in_service));
    if let Some(percent) = json::member(target, "percent").as_i64()
        && !(0..=100).contains(&percent)
    {
        errors.push(FieldError::out_of_bounds(percent, 0, 100, "percent"));
    }
    if !json::text(target, "url").is_empty() {
        errors.push(FieldError::disallowed(&["url"]));
    }
    errors
}

fn validate_names(revision: &str, configuration: &str, in_service: bool) -> Option<FieldError> {
    if in_service && !configuration.is_empty() {
        return Some(FieldError::disallowed(&["configurationName"]));
    }
    let named = |name: &str, path: &str| {
        let problems = syntax::qualified_name(name);
        (!problems.is_empty()).then(|| FieldError::invalid_key(name, path).with_details(problems.join(", ")))
    };
    match (revision.is_empty(), configuration.is_empty()) {
        (false, false) => Some(FieldError::several_of(&["revisionName", "configurationName"])),
        (false, true) => named(revision, "revisionName"),
        (true, false) => named(configuration, "configurationName"),
        (true, true) if in_service => None,
        (true, true) => Some(FieldError::none_of(&["revisionName", "configurationName"])),
    }
}
