//! Route.

use serde_json::Value;

use super::{Context, Operation, json, metadata, traffic};
use crate::{field_error::FieldErrors, labels::serving};

pub(super) fn default(operation: Operation, new: &mut Value, old: Option<&Value>, context: &Context<'_>) {
    let old = old.map(|old| {
        let mut old = old.clone();
        if let Some(spec) = json::object_mut(&mut old, "spec") {
            traffic::default(spec, false);
        }
        old
    });
    if let Some(spec) = json::object_mut(new, "spec") {
        traffic::default(spec, false);
    }
    // A Service's Route carries the users of the Service.
    if !metadata::is_owned(new) {
        metadata::set_user_info(operation, new, old.as_ref(), context);
    }
}

pub(super) fn validate(new: &Value, old: Option<&Value>) -> FieldErrors {
    let meta = json::member(new, "metadata");
    let mut of_meta = metadata::validate_without_autoscaling(meta);
    of_meta.also(metadata::validate_owner_label(meta, serving::SERVICE, "Service"));
    of_meta.also(metadata::validate_rollout_duration(meta).via_field("annotations"));
    let mut errors = of_meta.via_field("metadata");

    let targets = json::list(json::member(new, "spec"), "traffic");
    errors.also(traffic::validate(targets, false).via_field("spec.traffic"));

    if let Some(old) = old
        && !metadata::is_owned(new)
    {
        errors.also(metadata::validate_creator_and_modifier(old, new).via_field("metadata.annotations"));
    }
    errors
}
