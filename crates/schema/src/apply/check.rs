//! Checks what somebody applies against its type.

use std::collections::BTreeSet;

use serde_json::Value;

use super::set::PathElement;
use super::walk;
use crate::ty::{List, ListKind, Shape, Type};

/// Every problem, each as `.spec.foo: field not declared in schema`.
pub(super) fn problems(ty: &Type, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    step(ty, value, "", &mut found);
    found
}

fn step(ty: &Type, value: &Value, path: &str, found: &mut Vec<String>) {
    match (&ty.shape, value) {
        (_, Value::Null) => {}
        (Shape::Object(object), Value::Object(entries)) => {
            for (name, inner) in entries {
                let path = format!("{path}.{name}");
                match object.field(name) {
                    Some(field) => step(&field.ty, inner, &path, found),
                    None if object.open => {}
                    None => found.push(format!("{path}: field not declared in schema")),
                }
            }
        }
        (Shape::Map(map), Value::Object(entries)) => {
            for (name, inner) in entries {
                step(&map.values, inner, &format!("{path}.{name}"), found);
            }
        }
        (Shape::List(list), Value::Array(values)) => items(list, values, path, found),
        (Shape::Object(_) | Shape::Map(_), _) => found.push(format!("{path}: expected map, got {value}")),
        (Shape::List(_), _) => found.push(format!("{path}: expected list, got {value}")),
        (Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Duration, _) if !value.is_string() => {
            found.push(format!("{path}: expected string, got {value}"));
        }
        (Shape::Int32 | Shape::Int64 | Shape::Double, _) if !value.is_number() => {
            found.push(format!("{path}: expected numeric (int or float), got {}", kind(value)));
        }
        (Shape::Bool, _) if !value.is_boolean() => found.push(format!("{path}: expected boolean, got {}", kind(value))),
        _ => {}
    }
}

fn items(list: &List, values: &[Value], path: &str, found: &mut Vec<String>) {
    let mut seen: BTreeSet<PathElement> = BTreeSet::new();
    for (at, value) in values.iter().enumerate() {
        if list.kind == ListKind::Atomic {
            step(&list.items, value, &format!("{path}[{at}]"), found);
            continue;
        }
        match walk::item(list, value) {
            Err(key) => found.push(format!(
                "{path}: element {at}: associative list with keys has an element that omits key field \"{key}\" (and doesn't have default value)"
            )),
            Ok(element) => {
                step(&list.items, value, &format!("{path}{element}"), found);
                if !seen.insert(element.clone()) {
                    found.push(format!("{path}: duplicate entries for key {element}"));
                }
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}
