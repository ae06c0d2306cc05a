//! CustomResourceDefinitions.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object::{self, default as set};

/// Names from the kind, no conversion; established from the first moment.
pub(crate) fn default(definition: &mut Value) {
    let spec = super::spec(definition);
    let conversion = spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    if let Some(conversion) = conversion.as_object_mut() {
        set(conversion, "strategy", "None");
    }
    if let Some(names) = super::inner(spec, "names") {
        let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        set(names, "singular", kind.to_lowercase());
        set(names, "listKind", format!("{kind}List"));
    }
    let names = definition["spec"]["names"].clone();
    let current = definition.pointer("/status/acceptedNames") == Some(&names)
        && object::list(definition, "/spec/versions")
            .iter()
            .filter(|v| v["storage"] == true)
            .all(|v| object::list(definition, "/status/storedVersions").contains(&v["name"]));
    if !current {
        establish(definition, Timestamp::now());
    }
}

/// Fills in the status of a definition that was accepted: established from the first moment.
fn establish(definition: &mut Value, now: Timestamp) {
    let names = definition["spec"]["names"].clone();
    let since = crate::object::seconds(now);
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "lastTransitionTime": since, "reason": reason, "message": message});
    let storage = object::list(definition, "/spec/versions").iter().find(|v| v["storage"] == true);
    let stored = storage.map(|v| v["name"].clone());
    let mut versions: Vec<Value> = object::list(definition, "/status/storedVersions").to_vec();
    versions.extend(stored.filter(|s| !versions.contains(s)));
    definition["status"] = json!({
        "acceptedNames": names,
        "storedVersions": versions,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
}
