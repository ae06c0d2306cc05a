//! Broker.

use serde_json::Value;

use super::{
    super::{Context, diff, json},
    delivery, namespace, of_metadata,
    reference::{self, Scope},
};
use crate::{
    config::eventing::BrokerConfig,
    field_error::{FieldError, FieldErrors},
    labels::eventing::BROKER_CLASS,
};

pub(in super::super) fn default(new: &mut Value, context: &Context<'_>) {
    let defaults = &context.eventing.broker_defaults;
    let (namespace, class) = (namespace(new).to_owned(), class(new).to_owned());
    if let Some(spec) = json::object_mut(new, "spec") {
        // What is looked up is the kind of a given configuration, as if it were a class: so it is everywhere.
        let kind = json::text(json::member(spec, "config"), "kind");
        let by = if json::has(spec, "config") { kind } else { &class };
        if let Some(found) = defaults.config(&namespace, by) {
            fill(spec, found);
        }
        reference::default(spec, "config", &namespace);
        delivery::default(spec, &namespace);
    }
    if class.is_empty()
        && let Some(class) = defaults.class(&namespace)
        && let Some(annotations) = of_metadata(new, "annotations")
    {
        json::set(annotations, BROKER_CLASS, class);
    }
}

fn fill(spec: &mut Value, found: &BrokerConfig) {
    if let Some(config) = found.config.as_ref().and_then(|config| serde_json::to_value(config).ok()) {
        json::set_absent(spec, "config", config);
    }
    if let Some(mut delivery) = found.delivery.as_ref().and_then(|delivery| serde_json::to_value(delivery).ok()) {
        for key in ["timeout", "retryAfterMax", "format"] {
            delivery.as_object_mut().and_then(|delivery| delivery.remove(key));
        }
        json::set_absent(spec, "delivery", delivery);
    }
}

fn class(broker: &Value) -> &str {
    json::text(json::at(broker, &["metadata", "annotations"]), BROKER_CLASS)
}

pub(in super::super) fn validate(new: &Value, old: Option<&Value>, context: &Context<'_>) -> FieldErrors {
    let namespace = namespace(new);
    let within = if context.eventing.broker_defaults.same_namespace(namespace) { namespace } else { "" };
    let scope = Scope { features: &context.eventing.features, within };
    let mut errors = FieldErrors::none();
    if class(new).is_empty() {
        errors.push(FieldError::missing(&[BROKER_CLASS]));
    }
    let spec = json::member(new, "spec");
    let mut of_spec = FieldErrors::none();
    if json::has(spec, "config") {
        of_spec.also(reference::validate(json::member(spec, "config"), scope).via_field("config"));
    }
    of_spec.also(delivery::validate(spec, scope));
    errors.also(of_spec.via_field("spec"));
    errors.also(old.and_then(|old| validate_change(old, new)));
    errors
}

fn validate_change(old: &Value, new: &Value) -> Option<FieldError> {
    let config = |broker: &Value| json::at(broker, &["spec", "config"]).clone();
    let specs = [old, new].map(|broker| serde_json::json!({"config": config(broker)}));
    let changes = diff::short("{v1.BrokerSpec}", &specs[0], &specs[1]);
    if !changes.is_empty() {
        return Some(FieldError::new("Immutable fields changed (-old +new)", &["spec"]).with_details(changes));
    }
    let changes = diff::short("{string}", &class(old).into(), &class(new).into());
    (!changes.is_empty())
        .then(|| FieldError::new("Immutable annotations changed (-old +new)", &["annotations"]).with_details(changes))
}
