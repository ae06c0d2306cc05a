//! EventPolicy.

use serde_json::Value;

use super::{
    super::{Context, Operation, json},
    filter, namespace, reference,
};
use crate::field_error::{FieldError, FieldErrors, HERE};

pub(in super::super) fn default(new: &mut Value) {
    let namespace = namespace(new).to_owned();
    let from = new.get_mut("spec").and_then(|spec| spec.get_mut("from")).and_then(Value::as_array_mut);
    for from in from.into_iter().flatten() {
        reference::default(from, "ref", &namespace);
    }
}

pub(in super::super) fn validate(operation: Operation, new: &Value, context: &Context<'_>) -> FieldErrors {
    if operation == Operation::Create && !context.eventing.features.oidc_authentication.is_enabled() {
        return FieldError::new("oidc-authentication feature not enabled", &[]).into();
    }
    let spec = json::member(new, "spec");
    let mut errors = FieldErrors::none();
    for (at, from) in json::list(spec, "from").iter().enumerate() {
        errors.also(validate_from(from).via_field_index("from", at));
    }
    for (at, to) in json::list(spec, "to").iter().enumerate() {
        errors.also(validate_to(to).via_field_index("to", at));
    }
    errors.also(filter::validate(json::list(spec, "filters")).via_field("filters"));
    errors.via_field("spec")
}

fn validate_from(from: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let (reference, sub) = (json::member(from, "ref"), json::member(from, "sub").as_str());
    match (reference.is_null(), sub) {
        (true, None | Some("")) => errors.push(FieldError::none_of(&["ref", "sub"])),
        (false, Some(_)) => errors.push(FieldError::several_of(&["ref", "sub"])),
        _ => {}
    }
    errors.also(validate_reference(reference).via_field("ref"));
    let sub = sub.unwrap_or_default();
    if sub.find('*').is_some_and(|at| at + 1 < sub.len()) {
        let error = FieldError::invalid(sub, HERE).with_details("'*' is only allowed as suffix");
        errors.also(FieldErrors::from(error).via_field("sub"));
    }
    errors
}

fn validate_to(to: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let reference = json::member(to, "ref");
    match (reference.is_null(), json::has(to, "selector")) {
        (true, false) => errors.push(FieldError::none_of(&["ref", "selector"])),
        (false, true) => errors.push(FieldError::several_of(&["ref", "selector"])),
        _ => {}
    }
    errors.also(validate_reference(reference).via_field("ref"));
    errors
}

fn validate_reference(reference: &Value) -> FieldErrors {
    let keys = ["kind", "apiVersion", "name"].into_iter();
    let missing = keys.filter(|key| !reference.is_null() && json::text(reference, key).is_empty());
    missing.map(|key| FieldError::missing(&[key])).collect()
}
