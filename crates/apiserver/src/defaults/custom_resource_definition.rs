//! CustomResourceDefinitions.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    object::{self, default as set},
    resources,
};

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
        resources::established(definition, Timestamp::now());
    }
}
