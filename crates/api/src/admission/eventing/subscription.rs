//! Subscription.

use serde_json::{Value, json};

use super::{
    super::{Context, diff, json},
    delivery, destination, namespace,
    reference::{self, Scope},
};
use crate::field_error::{FieldError, FieldErrors};

pub(in super::super) fn default(new: &mut Value) {
    let namespace = namespace(new).to_owned();
    let Some(spec) = new.get_mut("spec") else { return };
    for key in ["subscriber", "reply"] {
        destination::default(spec, key, &namespace);
    }
    delivery::default(spec, &namespace);
}

pub(in super::super) fn validate(new: &Value, old: Option<&Value>, context: &Context<'_>) -> FieldErrors {
    let mut errors = validate_spec(json::member(new, "spec"), context).via_field("spec");
    if let Some(old) = old {
        let channel = |subscription: &Value| json!({"channel": json::at(subscription, &["spec", "channel"])});
        let changes = diff::short("{v1.SubscriptionSpec}", &channel(old), &channel(new));
        if !changes.is_empty() {
            errors.push(FieldError::new("Immutable fields changed (-old +new)", &["spec"]).with_details(changes));
        }
    }
    errors
}

fn validate_spec(spec: &Value, context: &Context<'_>) -> FieldErrors {
    let features = &context.eventing.features;
    let scope = Scope::anywhere(features);
    let channel = json::member(spec, "channel");
    if json::is_blank(channel) {
        let error = FieldError::missing(&["channel"]);
        return error.with_details("the Subscription must reference a channel").into();
    }
    let mut of_channel = reference::validate(channel, scope);
    of_channel.also(reference::validate_near(channel, features));
    let mut errors = of_channel.via_field("channel");
    let subscriber = json::member(spec, "subscriber");
    if is_empty(subscriber) {
        let error = FieldError::missing(&["subscriber"]);
        errors.push(error.with_details("the Subscription must reference a subscriber"));
    } else {
        errors.also(destination::validate(subscriber, scope).via_field("subscriber"));
    }
    let reply = json::member(spec, "reply");
    if !is_empty(reply) {
        errors.also(destination::validate(reply, scope).via_field("reply"));
    }
    errors.also(delivery::validate(spec, scope));
    errors
}

/// Whether a destination has no fields at all.
fn is_empty(destination: &Value) -> bool {
    destination.is_null() || destination.as_object().is_some_and(|fields| fields.values().all(Value::is_null))
}
