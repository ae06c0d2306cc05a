//! Merging lists by key or by value, and the order of what comes out.

use std::collections::{BTreeMap, BTreeSet};

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
    let server = Places::of(&original, Some(key));
    let (mut merged, patch) = directives(original, patch, key)?;
    let mut present = Places::of(&merged, Some(key));
    for given in &patch {
        let given_key = given.get(key).ok_or_else(|| missing(given, key))?;
        let Value::Object(entries) = given else { return Err(missing(given, key)) };
        let at = present.0.get(&given_key.to_string()).copied();
        match at.and_then(|at| merged.get_mut(at)) {
            Some(Value::Object(item)) => *item = merge_objects(items, std::mem::take(item), entries)?,
            _ => {
                present.0.entry(given_key.to_string()).or_insert(merged.len());
                merged.push(Value::Object(merge_objects(items, serde_json::Map::new(), entries)?));
            }
        }
    }
    Ok(arrange(merged, &Places::of(&patch, Some(key)), &server, Some(key)))
}

/// Where items are in a list, by what tells them apart; of equal ones the first.
pub(super) struct Places(BTreeMap<String, usize>);

impl Places {
    /// The places of a list's items: of those with the key, where there is one.
    pub(super) fn of(list: &[Value], key: Option<&str>) -> Self {
        let named = list.iter().enumerate().rev();
        Self(named.filter_map(|(at, item)| Some((identity(item, key)?, at))).collect())
    }

    fn of_item(&self, item: &Value, key: Option<&str>) -> Option<usize> {
        self.0.get(&identity(item, key)?).copied()
    }
}

/// What tells an item apart; `None` for one without the key.
fn identity(item: &Value, key: Option<&str>) -> Option<String> {
    match key {
        Some(key) => item.get(key).map(Value::to_string),
        None => Some(item.to_string()),
    }
}

fn missing(item: &Value, key: &str) -> PatchError {
    PatchError::MissingMergeKey { item: item.to_string(), key: key.to_owned() }
}

fn union(original: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let server = Places::of(&original, None);
    let mut seen = BTreeSet::new();
    let all = original.into_iter().chain(patch.iter().cloned());
    let merged: Vec<Value> = all.filter(|item| seen.insert(item.to_string())).collect();
    arrange(merged, &Places::of(patch, None), &server, None)
}

/// Carries out the items of a patch that are directives; answers the list without what they remove, and the other items.
fn directives(original: Vec<Value>, patch: &[Value], key: &str) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut list = original;
    let mut rest = Vec::new();
    let mut gone = BTreeSet::new();
    let mut replace = false;
    for item in patch {
        match item.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            None => rest.push(item.clone()),
            Some("delete") => {
                gone.insert(item.get(key).ok_or_else(|| missing(item, key))?.to_string());
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(PatchError::MergeItem),
            Some(other) => return Err(PatchError::Directive(other.to_owned())),
        }
    }
    if replace {
        list.clear();
    }
    if !gone.is_empty() {
        list.retain(|present| present.get(key).is_none_or(|key| !gone.contains(&key.to_string())));
    }
    Ok((list, rest))
}

/// Orders a merged list: what the patch mentions in the patch's order, what only the server had in the server's, and where
/// the server knew both, as the server had them. Otherwise what the patch mentions comes first.
pub(super) fn arrange(merged: Vec<Value>, patch: &Places, server: &Places, key: Option<&str>) -> Vec<Value> {
    let (mut mentioned, mut others) = (Vec::new(), Vec::new());
    for item in merged {
        let on_server = server.of_item(&item, key);
        match patch.of_item(&item, key) {
            Some(at) => mentioned.push((at, on_server, item)),
            None => others.push((on_server.unwrap_or(usize::MAX), on_server, item)),
        }
    }
    mentioned.sort_by_key(|(at, ..)| *at);
    others.sort_by_key(|(at, ..)| *at);
    let mut mentioned = mentioned.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    let mut ordered = Vec::new();
    loop {
        let other_first = match (others.peek(), mentioned.peek()) {
            (None, None) => return ordered,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((_, other, _)), Some((_, item, _))) => {
                matches!((other, item), (Some(other), Some(item)) if other < item)
            }
        };
        ordered.extend(if other_first { others.next() } else { mentioned.next() }.map(|(.., item)| item));
    }
}
