//! Merging lists by key or by value, and the order of what comes out.

use serde_json::Value;

use super::{PATCH, PatchError, merge_objects};
use crate::ty::Type;

/// Merges a patch's items into a list. With a key, objects with the same key merge; without one, equal values are one.
pub(super) fn merge(
    items: Option<&Type>,
    original: Vec<Value>,
    patch: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    let scalar = !original.iter().chain(patch).any(Value::is_object);
    let Some(key) = key.filter(|_| !scalar) else {
        return Ok(union(original, patch));
    };
    let server = original.clone();
    let (mut merged, patch) = directives(original, patch, key)?;
    for given in &patch {
        let given_key = given.get(key).ok_or_else(|| missing(given, key))?;
        let Value::Object(entries) = given else { return Err(missing(given, key)) };
        match merged.iter_mut().find(|item| item.get(key) == Some(given_key)) {
            Some(Value::Object(present)) => *present = merge_objects(items, std::mem::take(present), entries)?,
            _ => merged.push(Value::Object(merge_objects(items, serde_json::Map::new(), entries)?)),
        }
    }
    Ok(arrange(merged, &patch, &server, Some(key)))
}

fn missing(item: &Value, key: &str) -> PatchError {
    PatchError::MissingMergeKey { item: item.to_string(), key: key.to_owned() }
}

fn union(original: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
    for item in original.iter().chain(patch) {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    arrange(merged, patch, &original, None)
}

/// Carries out the items of a patch that are directives; answers the list without what they remove, and the other items.
fn directives(original: Vec<Value>, patch: &[Value], key: &str) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut list = original;
    let mut rest = Vec::new();
    let mut replace = false;
    for item in patch {
        match item.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            None => rest.push(item.clone()),
            Some("delete") => {
                let gone = item.get(key).ok_or_else(|| missing(item, key))?;
                list.retain(|present| present.get(key) != Some(gone));
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(PatchError::MergeItem),
            Some(other) => return Err(PatchError::Directive(other.to_owned())),
        }
    }
    if replace {
        list.clear();
    }
    Ok((list, rest))
}

/// Orders a merged list: what the patch mentions in the patch's order, what only the server had in the server's, and where
/// the server knew both, as the server had them. Otherwise what the patch mentions comes first.
pub(super) fn arrange(merged: Vec<Value>, patch: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| {
        list.iter().position(|other| match key {
            Some(key) => other.get(key).is_some() && other.get(key) == item.get(key),
            None => other == item,
        })
    };
    let (mut mentioned, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(patch, item).is_some());
    mentioned.sort_by_key(|item| place(patch, item).unwrap_or(usize::MAX));
    others.sort_by_key(|item| place(server, item).unwrap_or(usize::MAX));
    let mut mentioned = mentioned.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    let mut ordered = Vec::new();
    loop {
        let other_first = match (others.peek(), mentioned.peek()) {
            (None, None) => return ordered,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(item)) => {
                matches!((place(server, other), place(server, item)), (Some(other), Some(item)) if other < item)
            }
        };
        ordered.extend(if other_first { others.next() } else { mentioned.next() });
    }
}
