//! The OpenAPI v2 (Swagger) document of everything, for clients that know no newer one: `kubectl` checks what stands in a
//! `List` by it. Made from the documents of v3, and weaker where v2 cannot say the same.

mod protobuf;

use serde_json::{Map as JsonMap, Value, json};

pub use protobuf::encode;

/// Where v3 and v2 keep definitions.
const FROM: &str = "#/components/schemas/";
const TO: &str = "#/definitions/";
/// What operations are called in a path.
const METHODS: &[&str] = &["get", "put", "post", "delete", "patch"];

/// One document of v2 from those of v3.
pub fn document(documents: impl IntoIterator<Item = Value>) -> Value {
    let (mut paths, mut definitions) = (JsonMap::new(), JsonMap::new());
    for document in documents {
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            paths.insert(path.clone(), path_item(item));
        }
        for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
            if !definitions.contains_key(name) {
                definitions.insert(name.clone(), self::schema(schema));
            }
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.35.0"},
        "paths": paths,
        "definitions": definitions,
    })
}

fn path_item(item: &Value) -> Value {
    let mut converted = JsonMap::new();
    for method in METHODS {
        if let Some(given) = item.get(*method) {
            converted.insert((*method).to_owned(), operation(given));
        }
    }
    if let Some(given) = item.get("parameters").and_then(Value::as_array) {
        converted.insert("parameters".into(), given.iter().map(parameter).collect());
    }
    Value::Object(converted)
}

fn operation(given: &Value) -> Value {
    let mut parameters: Vec<Value> = given["parameters"].as_array().into_iter().flatten().map(parameter).collect();
    let mut operation = json!({
        "tags": given["tags"],
        "produces": ["application/json"],
        "x-kubernetes-action": given["x-kubernetes-action"],
        "x-kubernetes-group-version-kind": given["x-kubernetes-group-version-kind"],
    });
    if let Some(content) = given["requestBody"]["content"].as_object() {
        let body = content.values().next().map(|one| schema(&one["schema"])).unwrap_or_default();
        parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": body}));
        operation["consumes"] = content.keys().map(String::as_str).collect();
    }
    operation["parameters"] = parameters.into();
    let answer = schema(&given["responses"]["200"]["content"]["application/json"]["schema"]);
    operation["responses"] = json!({"200": {"description": "OK", "schema": answer}});
    operation
}

/// A parameter in a path or a query: what it is stands beside its name.
fn parameter(given: &Value) -> Value {
    let mut converted = given.as_object().cloned().unwrap_or_default();
    if let Some(Value::Object(schema)) = converted.remove("schema") {
        converted.extend(schema);
    }
    Value::Object(converted)
}

/// A schema. Readers of v2 are strict: a whole document is of no use to them for one schema that it cannot have.
fn schema(given: &Value) -> Value {
    let Some(given) = given.as_object() else { return json!({}) };
    let mut converted = JsonMap::new();
    for (name, value) in given {
        let kept = name.starts_with("x-kubernetes-") || matches!(name.as_str(), "description" | "default" | "enum");
        if kept {
            converted.insert(name.clone(), value.clone());
        }
    }
    if let Some(target) = reference(given) {
        converted.insert("$ref".into(), format!("{TO}{target}").into());
        return Value::Object(converted);
    }
    // Where null may stand, or fields that nobody named, anything may: who checks by v2 would refuse it.
    if given.get("nullable") != Some(&Value::Bool(true)) {
        let open = given.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        shape(given, open, &mut converted);
    }
    Value::Object(converted)
}

fn reference(given: &JsonMap<String, Value>) -> Option<&str> {
    let only = given.get("allOf").and_then(Value::as_array).filter(|all| all.len() == 1).and_then(|all| all.first());
    let target = given.get("$ref").or_else(|| only?.get("$ref"))?;
    target.as_str()?.strip_prefix(FROM)
}

fn shape(given: &JsonMap<String, Value>, open: bool, converted: &mut JsonMap<String, Value>) {
    let text = |name: &str| given.get(name).and_then(Value::as_str);
    // Every number is a string to those who read v2.
    let either = given.contains_key("oneOf") && given.get("x-kubernetes-int-or-string").is_none();
    let kind = text("type").or(either.then_some("string"));
    match kind {
        Some("object") if open => {}
        Some("object") => {
            if let Some(properties) = given.get("properties").and_then(Value::as_object) {
                let properties = properties.iter().map(|(name, inner)| (name.clone(), schema(inner)));
                converted.insert("properties".into(), Value::Object(properties.collect()));
                if let Some(required) = given.get("required").filter(|required| required.is_array()) {
                    converted.insert("required".into(), required.clone());
                }
            } else if let Some(values) = given.get("additionalProperties").filter(|values| values.is_object()) {
                converted.insert("additionalProperties".into(), schema(values));
            }
        }
        Some("array") => match given.get("items").filter(|items| items.is_object()) {
            Some(items) => drop(converted.insert("items".into(), schema(items))),
            None => return,
        },
        Some("string" | "number" | "integer" | "boolean") => {
            if let Some(format) = text("format") {
                converted.insert("format".into(), format.into());
            }
        }
        _ => return,
    }
    converted.insert("type".into(), kind.into());
}

#[cfg(test)]
mod tests;
