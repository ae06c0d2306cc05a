//! EventTransform.

use serde_json::Value;

use super::{
    super::{Context, json},
    destination, namespace,
    reference::Scope,
};
use crate::field_error::{FieldError, FieldErrors, HERE};

pub(in super::super) fn validate(new: &Value, old: Option<&Value>, context: &Context<'_>) -> FieldErrors {
    let spec = json::member(new, "spec");
    let scope = Scope { features: &context.eventing.features, within: namespace(new) };
    let sink = json::member(spec, "sink");
    let mut errors = FieldErrors::none();
    if !json::has(spec, "jsonata") {
        errors.push(FieldError::none_of(&["jsonata"]));
    }
    errors.also(destination::validate_optional(sink, scope).via_field("sink"));
    if json::has(sink, "CACerts") && json::has(spec, "jsonata") {
        let message = "CACerts for the sink is not supported for JSONata transformations, to propagate CA trust \
                       bundles use labeled ConfigMaps: \
                       https://knative.dev/docs/eventing/features/transport-encryption/#configure-additional-ca-trust-bundles";
        errors.also(FieldError::new(message, &["CACerts"]).via_field("sink"));
    }
    errors.also(validate_reply(spec).map(|error| error.via_field("reply")));
    if let Some(old) = old {
        errors.also(validate_change(json::member(old, "spec"), spec));
    }
    errors.via_field("spec")
}

fn validate_reply(spec: &Value) -> Option<FieldError> {
    let reply = Some(json::member(spec, "reply")).filter(|reply| !reply.is_null())?;
    if !json::has(spec, "sink") {
        return Some(FieldError::new("reply is set without spec.sink", &[HERE]));
    }
    let both = json::has(reply, "jsonata") && json::truth(reply, "discard");
    both.then(|| FieldError::several_of(&["jsonata", "discard"]))
}

fn validate_change(old: &Value, new: &Value) -> Option<FieldError> {
    const SUGGESTION: &str =
        "Suggestion: create a new transformation, migrate services to the new one, and delete this transformation.";
    let what = match (json::has(old, "jsonata"), json::has(new, "jsonata")) {
        (false, true) => "jsonata transformation cannot be changed to a different transformation type.",
        (true, false) => "transformation type cannot be changed to a jsonata transformation.",
        _ => return None,
    };
    Some(FieldError::new(format!("Transformations types are immutable, {what} {SUGGESTION}"), &[]).via_field("jsonata"))
}
