//! PodAutoscaler.

use serde_json::Value;

use super::{Context, json, metadata, object_reference, template};
use crate::{
    autoscaling::annotations::{CLASS, METRIC, default_metric},
    field_error::{FieldError, FieldErrors, HERE},
};

pub(super) fn default(new: &mut Value, context: &Context<'_>) {
    let Some(annotations) =
        json::object_mut(new, "metadata").and_then(|metadata| json::object_mut(metadata, "annotations"))
    else {
        return;
    };
    json::set_absent(annotations, CLASS.name(), context.config.autoscaler.pod_autoscaler_class.as_str());
    let metric = default_metric(json::text(annotations, CLASS.name()));
    json::set_absent(annotations, METRIC.name(), metric);
}

pub(super) fn validate(new: &Value, context: &Context<'_>) -> FieldErrors {
    let meta = json::member(new, "metadata");
    let mut errors = metadata::validate_with_autoscaling(meta, &context.config.autoscaler).via_field("metadata");
    errors.also(validate_spec(json::member(new, "spec"), context).via_field("spec"));
    errors
}

fn validate_spec(spec: &Value, context: &Context<'_>) -> FieldErrors {
    if json::is_zero(spec) {
        return FieldError::missing(&[HERE]).into();
    }
    let mut errors = object_reference::validate(json::member(spec, "scaleTargetRef")).via_field("scaleTargetRef");
    let concurrency = json::int(spec, "containerConcurrency");
    let of_concurrency = template::validate_concurrency(concurrency, &context.config.defaults);
    errors.also(of_concurrency.via_field("containerConcurrency"));
    errors.also(object_reference::validate_protocol(spec));
    errors
}
