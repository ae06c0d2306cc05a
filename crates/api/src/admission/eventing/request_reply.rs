//! RequestReply.

use serde_json::Value;

use super::{
    super::{Context, json},
    delivery, namespace, of_metadata,
    reference::{self, Scope},
};
use crate::{
    field_error::{FieldError, FieldErrors},
    iso8601,
    labels::eventing::BROKER,
};

pub(in super::super) fn default(new: &mut Value, context: &Context<'_>) {
    let Some(spec) = json::object_mut(new, "spec") else { return };
    let timeout = &context.eventing.features.request_reply_default_timeout;
    let defaults =
        [("timeout", timeout.as_str()), ("correlationAttribute", "correlationid"), ("replyAttribute", "replyid")];
    for (key, value) in defaults {
        if json::is_blank(json::member(spec, key)) {
            json::set(spec, key, value);
        }
    }
    let broker = json::text(json::member(spec, "brokerRef"), "name").to_owned();
    if !broker.is_empty()
        && let Some(labels) = of_metadata(new, "labels")
    {
        json::set(labels, BROKER, broker);
    }
}

pub(in super::super) fn validate(new: &Value, context: &Context<'_>) -> FieldErrors {
    let spec = json::member(new, "spec");
    let scope = Scope { features: &context.eventing.features, within: namespace(new) };
    let broker = json::member(spec, "brokerRef");
    let mut of_broker = reference::validate(broker, scope);
    let kind = json::text(broker, "kind");
    if !kind.eq_ignore_ascii_case("broker") {
        of_broker.push(FieldError::invalid(kind, "kind").with_details("brokerRef kind must be Broker"));
    }
    if !json::text(broker, "namespace").is_empty() {
        of_broker.push(FieldError::disallowed(&["namespace"]));
    }
    let mut errors = of_broker.via_field("brokerRef");
    errors.also(delivery::validate(spec, scope));
    errors.also(validate_timeout(json::text(spec, "timeout")));
    for key in ["correlationAttribute", "replyAttribute"] {
        errors.also(validate_attribute(json::text(spec, key), &key.to_lowercase()));
    }
    errors.via_field("spec")
}

fn validate_timeout(text: &str) -> Option<FieldError> {
    let why = match iso8601::parse(text) {
        Ok(period) if period.is_negative() || period.is_zero() => "timeout must be a positive duration".to_owned(),
        Ok(_) => return None,
        Err(error) => error.to_string(),
    };
    Some(FieldError::invalid(text, "timeout").with_details(why))
}

/// Core attributes belong to the event itself.
fn validate_attribute(name: &str, path: &str) -> Option<FieldError> {
    let is_core = matches!(name, "" | "id" | "source" | "specversion" | "type");
    is_core.then(|| {
        FieldError::invalid(name, path).with_details(format!(
            "{path} must be non-empty and cannot be a core cloudevent attribute (id, type, specversion, source)"
        ))
    })
}
