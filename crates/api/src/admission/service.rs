//! Service.

use serde_json::Value;

use super::{Context, Operation, json, metadata, revision_defaults, template, traffic};
use crate::field_error::FieldErrors;

pub(super) fn default(operation: Operation, new: &mut Value, old: Option<&Value>, context: &Context<'_>) {
    // What is stored may be older than some default, which must not look like a change of the user's.
    let old = old.map(|old| {
        let mut old = old.clone();
        revision_defaults::apply_to_template(&mut old, None, false, context);
        if let Some(spec) = json::object_mut(&mut old, "spec") {
            traffic::default(spec, true);
        }
        old
    });
    revision_defaults::apply_to_template(new, old.as_ref(), operation == Operation::Create, context);
    if let Some(spec) = json::object_mut(new, "spec") {
        traffic::default(spec, true);
    }
    metadata::set_user_info(operation, new, old.as_ref(), context);
}

pub(super) fn validate(new: &Value, old: Option<&Value>, context: &Context<'_>) -> FieldErrors {
    let meta = json::member(new, "metadata");
    let mut of_meta = metadata::validate_without_autoscaling(meta);
    of_meta.also(metadata::validate_rollout_duration(meta).via_field("annotations"));
    let mut errors = of_meta.via_field("metadata");

    let spec = json::member(new, "spec");
    let mut of_spec = template::validate(json::member(spec, "template"), meta, context).via_field("template");
    of_spec.also(traffic::validate(json::list(spec, "traffic"), true).via_field("traffic"));
    errors.also(of_spec.via_field("spec"));

    if let Some(old) = old {
        errors.also(metadata::validate_creator_and_modifier(old, new).via_field("metadata.annotations"));
        errors.also(template::validate_name_change(old, new));
    }
    errors
}
