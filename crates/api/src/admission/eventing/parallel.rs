//! Parallel.

use serde_json::Value;

use super::{
    super::{Context, json},
    delivery, destination, namespace,
    reference::Scope,
    template,
};
use crate::field_error::{FieldError, FieldErrors};

pub(in super::super) fn default(new: &mut Value, context: &Context<'_>) {
    let namespace = namespace(new).to_owned();
    let Some(spec) = json::object_mut(new, "spec") else { return };
    // Whatever is said of the namespace, the cluster's default counts: so it is everywhere.
    template::default(spec, "", context);
    for branch in spec.get_mut("branches").and_then(Value::as_array_mut).into_iter().flatten() {
        for key in ["filter", "subscriber", "reply"] {
            destination::default(branch, key, &namespace);
        }
    }
    destination::default(spec, "reply", &namespace);
}

pub(in super::super) fn validate(new: &Value, context: &Context<'_>) -> FieldErrors {
    let spec = json::member(new, "spec");
    let scope = Scope::anywhere(&context.eventing.features);
    let branches = json::list(spec, "branches");
    let mut errors = FieldErrors::none();
    if branches.is_empty() {
        errors.push(FieldError::missing(&["branches"]));
    }
    for (at, branch) in branches.iter().enumerate() {
        let mut of_branch = destination::validate(json::member(branch, "subscriber"), scope).via_field("subscriber");
        for key in ["filter", "reply"] {
            of_branch.also(destination::validate_optional(json::member(branch, key), scope).via_field(key));
        }
        of_branch.also(delivery::validate(branch, scope));
        errors.also(of_branch.via_field_index("branches", at));
    }
    errors.also(template::validate(spec));
    errors.also(destination::validate_optional(json::member(spec, "reply"), scope).via_field("reply"));
    errors.via_field("spec")
}
