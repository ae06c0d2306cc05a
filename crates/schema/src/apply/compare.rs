//! What changed from one state of an object to the next.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map as JsonMap, Value};

use super::set::{FieldSet, PathElement};
use super::walk::{Granularity, Use, is_empty, items};
use crate::ty::Type;

/// The paths that differ between two states.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    /// Forgets paths and all below them.
    pub(super) fn without(self, ignored: &FieldSet) -> Self {
        Self {
            added: self.added.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            removed: self.removed.recursive_difference(ignored),
        }
    }
}

/// Compares two states of an object.
pub(super) fn compare(ty: &Type, old: &Value, new: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    step(Use::of(ty), Some(old), Some(new), &mut Vec::new(), &mut comparison);
    comparison
}

fn step(usage: Use<'_>, old: Option<&Value>, new: Option<&Value>, path: &mut Vec<PathElement>, found: &mut Comparison) {
    // Most of an object is as it was: nothing in there is to be named.
    if old == new {
        return;
    }
    let granularity = usage.granularity(&[old, new]);
    let leaf = matches!(granularity, Granularity::Leaf) || (is_empty(old) && is_empty(new));
    match granularity {
        _ if leaf => {
            if let (Some(old), Some(new)) = (old, new)
                && old != new
            {
                found.modified.insert(path);
            }
        }
        Granularity::Leaf => {}
        Granularity::Fields => fields(usage, old, new, path, found),
        Granularity::Items(list) => {
            let old_places = places(items(list, old));
            let new_places = places(items(list, new));
            let elements: BTreeSet<&PathElement> = old_places.keys().chain(new_places.keys()).collect();
            for element in elements {
                let at = |places: &BTreeMap<PathElement, usize>| places.get(element).copied();
                path.push(element.clone());
                let old = at(&old_places).and_then(|at| old?.get(at));
                let new = at(&new_places).and_then(|at| new?.get(at));
                step(Use::of(&list.items), old, new, path, found);
                path.pop();
            }
        }
    }
    match (old, new) {
        (None, Some(_)) => found.added.insert(path),
        (Some(_), None) => found.removed.insert(path),
        _ => {}
    }
}

/// Where each item is; of equal ones the first.
fn places(elements: Vec<PathElement>) -> BTreeMap<PathElement, usize> {
    elements.into_iter().enumerate().rev().map(|(at, element)| (element, at)).collect()
}

fn fields<'v>(
    usage: Use<'_>,
    old: Option<&'v Value>,
    new: Option<&'v Value>,
    path: &mut Vec<PathElement>,
    found: &mut Comparison,
) {
    let entries = |value: Option<&'v Value>| value.and_then(Value::as_object).into_iter().flat_map(JsonMap::keys);
    let names: BTreeSet<&String> = entries(old).chain(entries(new)).collect();
    for name in names {
        path.push(PathElement::Field(name.clone()));
        let (old, new) = (old.and_then(|old| old.get(name)), new.and_then(|new| new.get(name)));
        step(usage.field(name), old, new, path, found);
        path.pop();
    }
}
