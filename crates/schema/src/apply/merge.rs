//! Merging what somebody applies into an object, and taking parts out of one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map as JsonMap, Value};

use super::set::{FieldSet, PathElement};
use super::walk::{Granularity, Use, is_empty, items};
use crate::ty::{List, Type};

/// The object with all that is applied in it.
pub(super) fn merge(ty: &Type, live: &Value, applied: &Value) -> Value {
    step(Use::of(ty), Some(live), Some(applied)).unwrap_or_default()
}

fn step(usage: Use<'_>, live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    let granularity = usage.granularity(&[live, applied]);
    if is_empty(live) && is_empty(applied) {
        return applied.or(live).cloned();
    }
    match granularity {
        Granularity::Leaf => applied.or(live).cloned(),
        Granularity::Fields => {
            let mut merged = live.and_then(Value::as_object).cloned().unwrap_or_default();
            for (name, given) in applied.and_then(Value::as_object).into_iter().flatten() {
                if let Some(value) = step(usage.field(name), merged.get(name), Some(given)) {
                    merged.insert(name.clone(), value);
                }
            }
            Some(Value::Object(merged))
        }
        Granularity::Items(list) => Some(Value::Array(lists(list, live, applied))),
    }
}

/// Merges two lists: the applied order holds, and items only the live list has stay between their neighbours.
fn lists(list: &List, live: Option<&Value>, applied: Option<&Value>) -> Vec<Value> {
    let (live_keys, applied_keys) = (items(list, live), items(list, applied));
    let in_applied: BTreeSet<&PathElement> = applied_keys.iter().collect();
    // Of equal items the first.
    let in_live: BTreeMap<&PathElement, usize> =
        live_keys.iter().enumerate().rev().map(|(at, key)| (key, at)).collect();
    let get = |value: Option<&Value>, at: usize| value.and_then(|value| value.get(at)).cloned().unwrap_or_default();
    let both = |at: usize| {
        let given = get(applied, at);
        let present = in_live.get(&applied_keys[at]).map(|&at| get(live, at));
        step(Use::of(&list.items), present.as_ref(), Some(&given)).unwrap_or_default()
    };
    let shared: Vec<&PathElement> = applied_keys.iter().filter(|key| in_live.contains_key(key)).collect();
    let mut shared = shared.into_iter().peekable();
    let mut merged = Vec::new();
    let (mut at_live, mut at_applied) = (0, 0);
    loop {
        let (present, given) = (live_keys.get(at_live), applied_keys.get(at_applied));
        match (present, given) {
            (None, None) => return merged,
            (Some(present), _) if !in_applied.contains(present) => {
                merged.push(get(live, at_live));
                at_live += 1;
            }
            // Already taken, or its turn comes later.
            (Some(_), None) => at_live += 1,
            (Some(present), Some(given)) if present != given && shared.peek() != Some(&present) => at_live += 1,
            (present, Some(given)) => {
                merged.push(both(at_applied));
                at_applied += 1;
                at_live += usize::from(present == Some(given));
                shared.next_if_eq(&given);
            }
        }
    }
}

/// The object without some parts. Objects and lists that lose all their parts stay, empty.
pub(super) fn remove(ty: &Type, value: &Value, gone: &FieldSet) -> Value {
    without(Use::of(ty), value, gone)
}

fn without(usage: Use<'_>, value: &Value, gone: &FieldSet) -> Value {
    match (usage.granularity(&[Some(value)]), value) {
        (Granularity::Fields, Value::Object(entries)) => {
            let mut rest = JsonMap::new();
            for (name, inner) in entries {
                let element = PathElement::Field(name.clone());
                if !gone.has(&element) {
                    let inner = match gone.below(&element) {
                        Some(below) => without(usage.field(name), inner, below),
                        None => inner.clone(),
                    };
                    rest.insert(name.clone(), inner);
                }
            }
            Value::Object(rest)
        }
        (Granularity::Items(list), Value::Array(values)) => {
            let mut rest = Vec::new();
            for (element, inner) in items(list, Some(value)).into_iter().zip(values) {
                if !gone.has(&element) {
                    rest.push(match gone.below(&element) {
                        Some(below) => without(Use::of(&list.items), inner, below),
                        None => inner.clone(),
                    });
                }
            }
            Value::Array(rest)
        }
        _ => value.clone(),
    }
}
