//! SinkBinding.

use serde_json::Value;

use super::{
    super::{Context, json},
    destination, namespace,
    reference::{self, Scope},
    source,
};
use crate::{
    field_error::{FieldError, FieldErrors},
    syntax,
};

pub(in super::super) fn default(new: &mut Value) {
    let namespace = namespace(new).to_owned();
    let Some(spec) = new.get_mut("spec") else { return };
    reference::default(spec, "subject", &namespace);
    destination::default(spec, "sink", &namespace);
}

pub(in super::super) fn validate(new: &Value, context: &Context<'_>) -> FieldErrors {
    let spec = json::member(new, "spec");
    let subject = json::member(spec, "subject");
    let mut errors = validate_subject(subject).via_field("subject");
    let named = json::text(subject, "namespace");
    if !named.is_empty() && named != namespace(new) {
        errors.push(FieldError::invalid(named, "subject.namespace"));
    }
    errors.also(source::validate(spec, Scope::anywhere(&context.eventing.features)));
    errors.via_field("spec")
}

fn validate_subject(subject: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for key in ["apiVersion", "kind", "namespace"] {
        let value = json::text(subject, key);
        let problems = match key {
            _ if value.is_empty() => {
                errors.push(FieldError::missing(&[key]));
                continue;
            }
            "apiVersion" => syntax::qualified_name(value),
            "kind" => syntax::identifier(value),
            _ => syntax::dns1123_label(value),
        };
        errors.also(well_formed(problems, key));
    }
    let selector = json::member(subject, "selector");
    match (selector.is_null(), json::text(subject, "name")) {
        (true, "") => errors.push(FieldError::none_of(&["selector", "name"])),
        (true, name) => errors.also(well_formed(syntax::dns1123_label(name), "name")),
        (false, "") => errors.also(validate_selector(selector)),
        (false, _) => errors.push(FieldError::several_of(&["selector", "name"])),
    }
    errors
}

fn well_formed(problems: Vec<String>, key: &str) -> Option<FieldError> {
    (!problems.is_empty()).then(|| FieldError::invalid(problems.join(", "), key))
}

/// The first expression that cannot be evaluated.
fn validate_selector(selector: &Value) -> Option<FieldError> {
    let problem = json::list(selector, "matchExpressions").iter().find_map(|expression| {
        let has_values = !json::list(expression, "values").is_empty();
        match json::text(expression, "operator") {
            "In" | "NotIn" if has_values => None,
            "In" | "NotIn" => Some("for 'in', 'notin' operators, values set can't be empty".to_owned()),
            "Exists" | "DoesNotExist" if !has_values => None,
            "Exists" | "DoesNotExist" => Some("values set must be empty for exists and does not exist".to_owned()),
            other => Some(format!("{other:?} is not a valid label selector operator")),
        }
    })?;
    Some(FieldError::invalid(problem, "selector"))
}
