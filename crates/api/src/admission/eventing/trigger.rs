//! Trigger.

use serde_json::Value;

use super::{
    super::{Context, diff, json},
    delivery, destination, filter, namespace, of_metadata,
    reference::{self, Scope},
};
use crate::{
    field_error::{FieldError, FieldErrors, HERE},
    labels::eventing::{BROKER, DEPENDENCY, INJECTION},
};

pub(in super::super) fn default(new: &mut Value, context: &Context<'_>) {
    let namespace = namespace(new).to_owned();
    let Some(spec) = json::object_mut(new, "spec") else { return };
    json::object_mut(spec, "filter");
    destination::default(spec, "subscriber", &namespace);
    delivery::default(spec, &namespace);
    let links = context.eventing.features.cross_namespace_event_links.is_enabled();
    let broker = match json::member(spec, "brokerRef") {
        reference if links && reference.is_object() => json::text(reference, "name"),
        _ => json::text(spec, "broker"),
    };
    let broker = broker.to_owned();
    if !broker.is_empty()
        && let Some(labels) = of_metadata(new, "labels")
    {
        json::set(labels, BROKER, broker);
    }
}

pub(in super::super) fn validate(new: &Value, old: Option<&Value>, context: &Context<'_>) -> FieldErrors {
    let spec = json::member(new, "spec");
    let mut errors = validate_spec(spec, context).via_field("spec");
    let annotations = json::annotations(new);
    for (key, check) in [
        (DEPENDENCY, validate_dependency as fn(&Value, &str) -> FieldErrors),
        (INJECTION, |trigger, value| validate_injection(trigger, value).into()),
    ] {
        if let Some(value) = annotations.get(key) {
            errors.also(check(new, value).via_field(&format!("metadata.annotations[{key}]")));
        }
    }
    if let Some(old) = old {
        let broker = |spec: &Value| Value::from(json::text(spec, "broker"));
        let changes = diff::short("{string}", &broker(json::member(old, "spec")), &broker(spec));
        if !changes.is_empty() {
            let error = FieldError::new("Immutable fields changed (-old +new)", &["spec", "broker"]);
            errors.push(error.with_details(changes));
        }
    }
    errors
}

fn validate_spec(spec: &Value, context: &Context<'_>) -> FieldErrors {
    let features = &context.eventing.features;
    let scope = Scope::anywhere(features);
    let reference = json::member(spec, "brokerRef");
    let mut errors = FieldErrors::none();
    match (json::text(spec, "broker").is_empty(), reference.is_null()) {
        (true, true) => errors.push(FieldError::missing(&["broker"])),
        (false, false) => errors.push(FieldError::several_of(&["broker", "brokerRef"])),
        _ => {}
    }
    errors.also(reference::validate_near(reference, features));
    errors.also(filter::attributes(json::at(spec, &["filter", "attributes"])).via_field("filter.attributes"));
    errors.also(filter::validate(json::list(spec, "filters")).via_field("filters"));
    errors.also(destination::validate(json::member(spec, "subscriber"), scope).via_field("subscriber"));
    errors.also(delivery::validate(spec, scope));
    errors
}

fn validate_dependency(trigger: &Value, text: &str) -> FieldErrors {
    let reference: Value = match serde_json::from_str(text) {
        Ok(reference @ Value::Object(_)) => reference,
        other => {
            let why = other.err().map_or_else(|| "it is no JSON object".to_owned(), |error| error.to_string());
            let message = format!("The provided annotation was not a corev1.ObjectReference: {text:?}");
            return FieldError::new(message, &[HERE]).with_details(why).into();
        }
    };
    let mut errors = FieldErrors::none();
    let (namespace, own) = (json::text(&reference, "namespace"), namespace(trigger));
    if !namespace.is_empty() && namespace != own {
        let message = format!("Namespace must be empty or equal to the trigger namespace {own:?}");
        errors.push(FieldError::new(message, &["namespace"]));
    }
    let missing = ["kind", "name", "apiVersion"].into_iter().filter(|key| json::text(&reference, key).is_empty());
    errors.extend(missing.map(|key| FieldError::missing(&[key])));
    errors
}

fn validate_injection(trigger: &Value, value: &str) -> Option<FieldError> {
    let broker = json::at(trigger, &["spec", "broker"]).as_str().unwrap_or_default();
    let message = if !matches!(value, "enabled" | "disabled") {
        format!("The provided injection annotation value can only be \"enabled\" or \"disabled\", not {value:?}")
    } else if broker != "default" {
        format!(
            "The provided injection annotation is only used for default broker, but non-default broker specified \
             here: {broker:?}"
        )
    } else {
        return None;
    };
    Some(FieldError::new(message, &[HERE]))
}
