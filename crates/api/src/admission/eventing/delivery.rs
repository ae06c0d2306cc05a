//! How events are delivered.

use serde_json::Value;

use super::{super::json, destination, reference::Scope};
use crate::{
    field_error::{FieldError, FieldErrors},
    iso8601::{self, Period},
};

/// What the delivery of a spec lacks is taken from where it stands.
pub(super) fn default(spec: &mut Value, namespace: &str) {
    if let Some(delivery) = spec.get_mut("delivery") {
        destination::default(delivery, "deadLetterSink", namespace);
    }
}

/// Checks the delivery of a spec; paths are relative to the spec.
pub(super) fn validate(spec: &Value, scope: Scope<'_>) -> FieldErrors {
    let delivery = json::member(spec, "delivery");
    let text = |key: &str| json::member(delivery, key).as_str();
    let sink = json::member(delivery, "deadLetterSink");
    let mut errors = destination::validate_optional(sink, scope).via_field("deadLetterSink");
    let retry = json::int(delivery, "retry");
    if retry < 0 {
        errors.push(FieldError::invalid(retry, "retry"));
    }
    errors.also(one_of(delivery, "backoffPolicy", &["exponential", "linear"]));
    errors.also(one_of(delivery, "format", &["binary", "json"]));
    if let Some(delay) = text("backoffDelay") {
        errors.also(span(delay, "backoffDelay", |period| !period.is_negative()));
    }
    if let Some(timeout) = text("timeout") {
        errors.also(if scope.features.delivery_timeout.is_enabled() {
            span(timeout, "timeout", |period| !period.is_negative() && !period.is_zero())
        } else {
            Some(FieldError::disallowed(&["timeout"]))
        });
    }
    if let Some(most) = text("retryAfterMax") {
        errors.also(if scope.features.delivery_retry_after.is_enabled() {
            span(most, "retryAfterMax", |period| !period.is_negative())
        } else {
            Some(FieldError::disallowed(&["retryAfterMax"]))
        });
    }
    errors.via_field("delivery")
}

fn one_of(delivery: &Value, key: &str, values: &[&str]) -> Option<FieldError> {
    let value = json::member(delivery, key).as_str()?;
    (!values.contains(&value)).then(|| FieldError::invalid(value, key))
}

fn span(text: &str, key: &str, fits: fn(Period) -> bool) -> Option<FieldError> {
    let is_fine = iso8601::parse(text).is_ok_and(fits);
    (!is_fine).then(|| FieldError::invalid(text, key))
}
