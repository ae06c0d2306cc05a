//! Defaults of a structural schema.

use serde_json::Value;

/// Fills in defaults below a value.
pub(super) fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = schema.get("default") {
                    let missing = entries.get(name).is_none_or(|given| given.is_null() && schema["nullable"] != true);
                    if missing {
                        entries.insert(name.clone(), default.clone());
                    }
                }
                if let Some(inner) = entries.get_mut(name) {
                    fill(schema, inner);
                }
            }
            if let values @ Value::Object(_) = &schema["additionalProperties"] {
                for inner in entries.values_mut() {
                    if let (true, Some(default)) =
                        (inner.is_null() && values["nullable"] != true, values.get("default"))
                    {
                        *inner = default.clone();
                    }
                    fill(values, inner);
                }
            }
        }
        Value::Array(items) => {
            let schema = &schema["items"];
            for inner in items {
                if let (true, Some(default)) = (inner.is_null() && schema["nullable"] != true, schema.get("default")) {
                    *inner = default.clone();
                }
                fill(schema, inner);
            }
        }
        _ => {}
    }
}
