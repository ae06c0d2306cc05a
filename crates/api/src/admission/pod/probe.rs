//! Probes.

use serde_json::Value;

use super::{json, port};
use crate::field_error::{FieldError, FieldErrors};

/// Checks a probe. `serving` is the port that requests come to, when the container serves; others must name their
/// port themselves.
pub(super) fn validate(probe: &Value, serving: Option<&port::Serving>) -> FieldErrors {
    if probe.is_null() {
        return FieldErrors::none();
    }
    let mut errors = FieldErrors::none();
    let mut handlers = Vec::new();
    for (field, shown) in [("httpGet", "httpGet"), ("tcpSocket", "tcpSocket"), ("exec", "exec"), ("grpc", "gRPC")] {
        let handler = json::member(probe, field);
        if handler.is_null() {
            continue;
        }
        handlers.push(shown);
        if matches!(field, "httpGet" | "tcpSocket") {
            errors.also(validate_port(json::member(handler, "port"), &format!("{field}.port"), serving));
        }
    }
    match handlers.as_slice() {
        [] => errors.push(FieldError::none_of(&["httpGet", "tcpSocket", "exec", "grpc"])),
        [_] => {}
        several => errors.push(FieldError::several_of(several)),
    }
    errors
}

/// A probe of the serving container may go to another port by number, but by name only to the serving one.
fn validate_port(port: &Value, path: &str, serving: Option<&port::Serving>) -> Option<FieldError> {
    let name = port.as_str().unwrap_or_default();
    let refuse = |why: &str| {
        let shown = if name.is_empty() { port.as_i64().unwrap_or_default().to_string() } else { name.to_owned() };
        Some(FieldError::invalid(shown, path).with_details(why))
    };
    match serving {
        Some(serving) if !name.is_empty() && name != serving.name => refuse("Probe port must match container port"),
        None if json::is_zero(port) => refuse("Probe port must be specified"),
        _ => None,
    }
}

/// Checks a readiness probe. Without a period it runs in its aggressive mode, which has no thresholds.
pub(super) fn validate_readiness(probe: &Value, serving: Option<&port::Serving>) -> FieldErrors {
    if probe.is_null() {
        return FieldErrors::none();
    }
    let mut errors = validate(probe, serving);
    let mut at_least = |field: &str, least: i64| {
        let value = json::int(probe, field);
        if value < least {
            errors.push(FieldError::out_of_bounds(value, least, i32::MAX, field));
        }
    };
    at_least("periodSeconds", 0);
    at_least("initialDelaySeconds", 0);
    at_least("successThreshold", 1);
    if json::int(probe, "periodSeconds") != 0 {
        at_least("timeoutSeconds", 1);
        at_least("failureThreshold", 1);
        return errors;
    }
    for field in ["failureThreshold", "timeoutSeconds"] {
        if json::int(probe, field) != 0 {
            errors.push(FieldError::new(format!("{field} is disallowed when periodSeconds is zero"), &[field]));
        }
    }
    errors
}
