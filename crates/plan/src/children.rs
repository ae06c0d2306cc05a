//! What the objects that controllers make have in common: names, owners, and metadata taken over from parents.

use std::collections::BTreeMap;

use knoll_api::{Resource, json, k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta};

/// Labels or annotations.
pub(crate) type Map = BTreeMap<String, String>;

/// Metadata of a child that `owner` controls, in the owner's namespace.
pub(crate) fn child_of<O: Resource>(owner: &O, name: impl Into<String>, labels: Map, annotations: Map) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(owner.namespace().to_owned()).filter(|namespace| !namespace.is_empty()),
        labels: some(labels),
        annotations: some(annotations),
        owner_references: Some(vec![owner.controller_reference()]),
        ..ObjectMeta::default()
    }
}

/// The map, or nothing when it is empty: the form in which the API server returns it.
pub(crate) fn some(map: Map) -> Option<Map> {
    Some(map).filter(|map| !map.is_empty())
}

/// Labels of an object.
pub(crate) fn labels<R: Resource>(object: &R) -> Map {
    object.meta().labels.clone().unwrap_or_default()
}

/// Annotations of an object.
pub(crate) fn annotations<R: Resource>(object: &R) -> Map {
    object.meta().annotations.clone().unwrap_or_default()
}

/// Without the keys that `drop` names.
pub(crate) fn without(mut map: Map, drop: impl Fn(&str) -> bool) -> Map {
    map.retain(|key, _| !drop(key));
    map
}

/// Both maps; where they meet, `over` wins.
pub(crate) fn union(mut under: Map, over: impl IntoIterator<Item = (String, String)>) -> Map {
    under.extend(over);
    under
}

/// A map from pairs.
pub(crate) fn map<const N: usize>(pairs: [(&str, &str); N]) -> Map {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The entries of a comma-separated annotation.
pub(crate) fn listed<'a, R: Resource>(object: &'a R, annotation: &str) -> std::collections::BTreeSet<&'a str> {
    object
        .annotation(annotation)
        .into_iter()
        .flat_map(|list| list.split(','))
        .filter(|entry| !entry.is_empty())
        .collect()
}

/// What a status says when a child's name is taken by someone else's object.
pub(crate) fn not_owned(kind: &str, name: &str) -> String {
    format!("There is an existing {kind} \"{name}\" that we do not own.")
}

/// Namespace of an object.
pub(crate) fn namespace<R: Resource>(object: &R) -> String {
    object.namespace().to_owned()
}

/// Whether `there` already says all that `wanted` says. What `wanted` leaves out is left to its owner: defaults
/// of the API server, fields of other controllers.
pub(crate) fn says<T: serde::Serialize>(there: &T, wanted: &T) -> bool {
    covers(&json::value_of(there), &json::value_of(wanted))
}

fn covers(there: &serde_json::Value, wanted: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| there.get(key).is_some_and(|there| covers(there, wanted)))
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(there, wanted)| covers(there, wanted))
        }
        (there, wanted) => there == wanted,
    }
}
