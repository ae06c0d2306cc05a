//! Channel.

use serde_json::Value;

use super::{
    super::{Context, diff, json},
    delivery, namespace, of_metadata,
    reference::Scope,
    template,
};
use crate::{
    field_error::{FieldError, FieldErrors},
    labels::eventing::SUBSCRIBABLE,
};

pub(in super::super) fn default(new: &mut Value, context: &Context<'_>) {
    note_subscribable(new);
    let namespace = namespace(new).to_owned();
    if let Some(spec) = json::object_mut(new, "spec")
        && template::default(spec, &namespace, context)
    {
        // Whoever says what it is made from says the rest, too.
        delivery::default(spec, &namespace);
    }
}

/// Says in which form a channel holds its subscribers.
pub(super) fn note_subscribable(channel: &mut Value) {
    if let Some(annotations) = of_metadata(channel, "annotations") {
        json::set_absent(annotations, SUBSCRIBABLE, "v1");
    }
}

pub(in super::super) fn validate(new: &Value, old: Option<&Value>, context: &Context<'_>) -> FieldErrors {
    let spec = json::member(new, "spec");
    let mut of_spec = template::validate(spec);
    if !json::list(spec, "subscribers").is_empty() {
        of_spec.push(FieldError::disallowed(&["subscribable.subscribers"]));
    }
    of_spec.also(delivery::validate(spec, Scope { features: &context.eventing.features, within: namespace(new) }));
    let mut errors = of_spec.via_field("spec");
    if let Some(old) = old {
        let settled = |channel: &Value| {
            let mut spec = json::member(channel, "spec").clone();
            spec.as_object_mut().and_then(|spec| spec.remove("subscribers"));
            spec
        };
        let changes = diff::short("{v1.ChannelSpec}", &settled(old), &settled(new));
        if !changes.is_empty() {
            errors.push(FieldError::new("Immutable fields changed (-old +new)", &["spec"]).with_details(changes));
        }
    }
    errors
}
