//! Defaults of a structural schema.

use serde_json::Value;

use crate::limits::{Budget, Exceeded, measure};

/// Fills in defaults below a value. One default may stand for every item of a list: what they come to is bounded.
pub(super) fn fill(schema: &Value, value: &mut Value, budget: &mut Budget) -> Result<(), Exceeded> {
    match value {
        Value::Object(entries) => {
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                let missing = entries.get(name).is_none_or(|given| given.is_null() && schema["nullable"] != true);
                if missing && let Some(default) = schema.get("default") {
                    budget.name(name)?;
                    entries.insert(name.clone(), copy(default, budget)?);
                }
                if let Some(inner) = entries.get_mut(name) {
                    fill(schema, inner, budget)?;
                }
            }
            if let values @ Value::Object(_) = &schema["additionalProperties"] {
                entries.values_mut().try_for_each(|inner| fill_null(values, inner, budget))?;
            }
        }
        Value::Array(items) => items.iter_mut().try_for_each(|inner| fill_null(&schema["items"], inner, budget))?,
        _ => {}
    }
    Ok(())
}

/// The same for a value that itself has a default where it cannot be null.
fn fill_null(schema: &Value, value: &mut Value, budget: &mut Budget) -> Result<(), Exceeded> {
    if value.is_null()
        && schema["nullable"] != true
        && let Some(default) = schema.get("default")
    {
        *value = copy(default, budget)?;
    }
    fill(schema, value, budget)
}

fn copy(default: &Value, budget: &mut Budget) -> Result<Value, Exceeded> {
    budget.pay(measure(default).weight)?;
    Ok(default.clone())
}
