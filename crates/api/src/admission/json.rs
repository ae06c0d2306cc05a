//! Reading and editing JSON trees whose schema is checked elsewhere: what has another type reads as absent.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::quantity::Quantity;

/// What every absent value reads as.
pub(super) static NOTHING: Value = Value::Null;

/// A member; null when absent.
pub(super) fn member<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or(&NOTHING)
}

/// A member of a member and so on; null when absent.
pub(super) fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, key| member(value, key))
}

/// Whether a member is there and not null.
pub(super) fn has(value: &Value, key: &str) -> bool {
    !member(value, key).is_null()
}

/// A text member; empty when absent.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    member(value, key).as_str().unwrap_or_default()
}

/// A number member; 0 when absent.
pub(super) fn int(value: &Value, key: &str) -> i64 {
    member(value, key).as_i64().unwrap_or_default()
}

/// A truth member; false when absent.
pub(super) fn truth(value: &Value, key: &str) -> bool {
    member(value, key).as_bool().unwrap_or_default()
}

/// A list member; empty when absent.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    member(value, key).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A member that maps keys to texts; empty when absent.
pub(super) fn texts(value: &Value, key: &str) -> BTreeMap<String, String> {
    let entries = member(value, key).as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// An object's annotations.
pub(super) fn annotations(object: &Value) -> BTreeMap<String, String> {
    texts(member(object, "metadata"), "annotations")
}

/// A member that is an object, made when absent; nothing when it has another type.
pub(super) fn object_mut<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let member = value.as_object_mut()?.entry(key).or_insert(Value::Null);
    if member.is_null() {
        *member = Value::Object(Map::new());
    }
    Some(member).filter(|member| member.is_object())
}

/// Sets a member.
pub(super) fn set(value: &mut Value, key: &str, to: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        map.insert(key.to_owned(), to.into());
    }
}

/// Sets a member that is absent or null.
pub(super) fn set_absent(value: &mut Value, key: &str, to: impl Into<Value>) {
    if !has(value, key) {
        set(value, key, to);
    }
}

/// Whether a value says nothing: null, empty, or an object of nothing but that.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_blank),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether a value is what an absent one is: blank, false or zero, all the way down.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Object(map) => map.values().all(is_zero),
        other => is_blank(other),
    }
}

/// Whether two values mean the same; what is blank means the same as what is absent.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(key, value)| same(value, member(b, key)))
                && y.iter().all(|(key, value)| x.contains_key(key) || is_blank(value))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        _ => a == b || (is_blank(a) && is_blank(b)),
    }
}

/// Rewrites the amounts of a map of resources canonically, numbers included; what is no amount stays.
pub(super) fn canonicalize_amounts(resources: &mut Value) {
    for amount in resources.as_object_mut().into_iter().flat_map(Map::values_mut) {
        canonicalize_amount(amount);
    }
}

/// Rewrites one amount canonically.
pub(super) fn canonicalize_amount(amount: &mut Value) {
    let text = match &*amount {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return,
    };
    if let Ok(quantity) = Quantity::parse(&text) {
        *amount = Value::String(quantity.to_string());
    }
}
