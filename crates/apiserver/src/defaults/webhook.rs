//! Webhook configurations.

use serde_json::{Value, json};

use super::each;
use crate::object::default as set;

/// Mutating ones are not called again.
pub(crate) fn mutating(configuration: &mut Value) {
    let Some(map) = configuration.as_object_mut() else { return };
    for webhook in each(map, "webhooks") {
        set(webhook, "reinvocationPolicy", "Never");
    }
    validating(configuration);
}

/// They fail closed after ten seconds and match everything.
pub(crate) fn validating(configuration: &mut Value) {
    let Some(map) = configuration.as_object_mut() else { return };
    for webhook in each(map, "webhooks") {
        set(webhook, "failurePolicy", "Fail");
        set(webhook, "matchPolicy", "Equivalent");
        set(webhook, "timeoutSeconds", 10);
        for selector in ["namespaceSelector", "objectSelector"] {
            webhook.entry(selector).or_insert_with(|| json!({}));
        }
        for rule in each(webhook, "rules") {
            set(rule, "scope", "*");
        }
        if let Some(service) = super::inner(webhook, "clientConfig").and_then(|c| super::inner(c, "service")) {
            set(service, "port", 443);
        }
    }
}
