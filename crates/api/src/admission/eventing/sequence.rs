//! Sequence.

use serde_json::Value;

use super::{
    super::{Context, json},
    delivery, destination, namespace,
    reference::{self, Scope},
    template,
};
use crate::field_error::{FieldError, FieldErrors};

pub(in super::super) fn default(new: &mut Value, context: &Context<'_>) {
    let namespace = namespace(new).to_owned();
    let Some(spec) = json::object_mut(new, "spec") else { return };
    // Whatever is said of the namespace, the cluster's default counts: so it is everywhere.
    template::default(spec, "", context);
    for step in spec.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
        reference::default(step, "ref", &namespace);
    }
    destination::default(spec, "reply", &namespace);
}

pub(in super::super) fn validate(new: &Value, context: &Context<'_>) -> FieldErrors {
    let spec = json::member(new, "spec");
    let scope = Scope::anywhere(&context.eventing.features);
    let steps = json::list(spec, "steps");
    let mut errors = FieldErrors::none();
    if steps.is_empty() {
        errors.push(FieldError::missing(&["steps"]));
    }
    for (at, step) in steps.iter().enumerate() {
        let mut of_step = destination::validate(step, scope);
        of_step.also(delivery::validate(step, scope));
        errors.also(of_step.via_field_index("steps", at));
    }
    errors.also(template::validate(spec));
    errors.also(destination::validate_optional(json::member(spec, "reply"), scope).via_field("reply"));
    errors.via_field("spec")
}
