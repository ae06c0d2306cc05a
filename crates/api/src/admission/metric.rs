//! Metric.

use serde_json::Value;

use super::{Context, json, metadata};
use crate::field_error::{FieldError, FieldErrors};

pub(super) fn validate(new: &Value, context: &Context<'_>) -> FieldErrors {
    let meta = json::member(new, "metadata");
    let mut errors = metadata::validate_with_autoscaling(meta, &context.config.autoscaler).via_field("metadata");
    if json::is_zero(json::member(new, "spec")) {
        errors.push(FieldError::missing(&["spec"]));
    }
    errors
}
