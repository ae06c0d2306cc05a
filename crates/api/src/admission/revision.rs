//! Revision.

use serde_json::Value;

use super::{Context, Operation, diff, json, metadata, revision_defaults, template};
use crate::{
    field_error::{FieldError, FieldErrors},
    labels::serving,
};

pub(super) fn default(operation: Operation, new: &mut Value, context: &Context<'_>) {
    // A spec that is immutable must not change because a default did.
    if operation != Operation::Create {
        return;
    }
    if let Some(spec) = json::object_mut(new, "spec") {
        revision_defaults::apply(spec, &Value::Null, true, context.config);
    }
}

pub(super) fn validate(new: &Value, old: Option<&Value>, context: &Context<'_>) -> FieldErrors {
    let meta = json::member(new, "metadata");
    let spec = json::member(new, "spec");
    let mut of_meta = metadata::validate_with_autoscaling(meta, &context.config.autoscaler);
    of_meta.also(metadata::validate_owner_label(meta, serving::CONFIGURATION, "Configuration"));
    let mut errors = of_meta.via_field("metadata");
    let Some(old) = old else {
        errors.also(template::validate_spec(spec, context).via_field("spec"));
        return errors;
    };
    let changes = diff::short("{v1.RevisionSpec}", json::member(old, "spec"), spec);
    if !changes.is_empty() {
        return FieldError::new("Immutable fields changed (-old +new)", &["spec"]).with_details(changes).into();
    }
    errors
}
