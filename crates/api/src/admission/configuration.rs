//! Configuration.

use serde_json::Value;

use super::{Context, Operation, json, metadata, revision_defaults, template};
use crate::{field_error::FieldErrors, labels::serving};

pub(super) fn default(operation: Operation, new: &mut Value, old: Option<&Value>, context: &Context<'_>) {
    let old = old.map(|old| {
        let mut old = old.clone();
        revision_defaults::apply_to_template(&mut old, None, false, context);
        old
    });
    revision_defaults::apply_to_template(new, old.as_ref(), operation == Operation::Create, context);
    // A Service's Configuration carries the users of the Service.
    if !metadata::is_owned(new) {
        metadata::set_user_info(operation, new, old.as_ref(), context);
    }
}

pub(super) fn validate(new: &Value, old: Option<&Value>, context: &Context<'_>) -> FieldErrors {
    let meta = json::member(new, "metadata");
    let mut of_meta = metadata::validate_without_autoscaling(meta);
    of_meta.also(metadata::validate_owner_label(meta, serving::SERVICE, "Service"));
    let mut errors = of_meta.via_field("metadata");

    let of_template = template::validate(json::at(new, &["spec", "template"]), meta, context);
    errors.also(of_template.via_field("spec.template"));

    if let Some(old) = old {
        if !metadata::is_owned(new) {
            errors.also(metadata::validate_creator_and_modifier(old, new).via_field("metadata.annotations"));
        }
        errors.also(template::validate_name_change(old, new));
    }
    errors
}
