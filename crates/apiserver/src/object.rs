//! Objects as JSON trees: reading and changing the parts every kind has.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// A time as objects have it: RFC 3339 with whole seconds.
pub(crate) fn seconds(at: Timestamp) -> String {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string()
}

/// The string at a JSON pointer; empty when absent or of another type.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a JSON pointer.
pub(crate) fn integer(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The elements at a JSON pointer; none when absent.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Whether there is nothing to see: absent, null, or an empty string, list or map.
pub(crate) fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        Some(Value::Array(a)) => a.is_empty(),
        Some(Value::Object(o)) => o.is_empty(),
        Some(_) => false,
    }
}

/// The map under `key`, made when it is absent or null. `object` must be a map.
pub(crate) fn map_at<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let slot = &mut object[key];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut().expect("it was just made a map")
}

/// Its metadata, made when absent.
pub(crate) fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_at(object, "metadata")
}

/// Name; empty when unset.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// Namespace; empty when unset.
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// uid; empty when unset.
pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Resource version as it stands in the object; empty when unset.
pub(crate) fn resource_version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// Whether deletion was asked for.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !is_empty(object.pointer("/metadata/deletionTimestamp"))
}

/// Finalizers.
pub(crate) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/metadata/finalizers").iter().filter_map(Value::as_str)
}

/// An annotation's value.
pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

/// Sets a field unless something is there.
pub(crate) fn default(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if is_unset(map.get(key)) {
        map.insert(key.into(), value.into());
    }
}

/// Whether a scalar counts as unset: absent, null or an empty string.
fn is_unset(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        _ => false,
    }
}

/// Removes nulls everywhere: to the API they mean absent.
pub(crate) fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// The name in a reference; empty when unset.
pub(crate) fn name_of(reference: &Value) -> &str {
    text(reference, "/name")
}

/// Whether an object is being deleted and nothing holds it.
pub(crate) fn is_released(object: &Value) -> bool {
    is_deleting(object)
        && finalizers(object).next().is_none()
        && integer(object, "/metadata/deletionGracePeriodSeconds").unwrap_or(0) == 0
        && (object["kind"] != "Namespace" || list(object, "/spec/finalizers").is_empty())
}
