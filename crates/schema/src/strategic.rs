//! Strategic merge patches: merges by the meaning of each field.
//!
//! Objects merge field by field and `null` removes; a list is replaced unless its field has the merge strategy, and then
//! items meet by the field's merge key, or by value. A patch may also say `$patch: replace|delete|merge`,
//! `$retainKeys`, `$deleteFromPrimitiveList/<list>` and `$setElementOrder/<list>`.

mod lists;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map as JsonMap, Value};

use crate::ty::{Field, Shape, Type};
use lists::Places;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_ITEMS: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Object and patch must both be objects.
    #[error("a strategic merge patch must be an object")]
    NotAnObject,
    /// `$patch` says something it cannot say.
    #[error("Unknown patch type found: {0}")]
    Directive(String),
    /// A directive has a value of the wrong form.
    #[error("invalid value of {0}")]
    DirectiveValue(String),
    /// The patch sets a field that its own `$retainKeys` leaves out.
    #[error("$retainKeys directives must contain all the keys present in the patch: {0} is missing")]
    NotRetained(String),
    /// An item of a merged list lacks the field that tells items apart.
    #[error("map: {item} does not contain declared merge key: {key}")]
    MissingMergeKey {
        /// The item.
        item: String,
        /// The field it lacks.
        key: String,
    },
    /// An item of a list asks for what only objects can do.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeItem,
}

type Entries = JsonMap<String, Value>;

/// Applies a patch and answers the patched object.
///
/// # Errors
/// When the patch is malformed; `original` is never changed.
pub fn strategic_merge(ty: &Type, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    match (original, patch) {
        (Value::Object(original), Value::Object(patch)) => {
            Ok(Value::Object(merge_objects(Some(ty), original.clone(), patch)?))
        }
        _ => Err(PatchError::NotAnObject),
    }
}

fn merge_objects(ty: Option<&Type>, mut original: Entries, patch: &Entries) -> Result<Entries, PatchError> {
    match patch.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("delete") => return Ok(Entries::new()),
        Some("replace") => {
            let mut replaced = patch.clone();
            replaced.remove(PATCH);
            return merge_objects(ty, Entries::new(), &replaced);
        }
        Some(other) => return Err(PatchError::Directive(other.to_owned())),
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        retain(&mut original, patch, keys)?;
    }
    let before = ordered(patch, &original);
    for (name, given) in patch {
        if name == PATCH || name == RETAIN_KEYS || name.starts_with(ORDER) {
            continue;
        }
        if let Some(list) = name.strip_prefix(DELETE_ITEMS) {
            let gone = given.as_array().ok_or_else(|| PatchError::DirectiveValue(name.clone()))?;
            if let Some(Value::Array(items)) = original.get_mut(list) {
                let gone: BTreeSet<String> = gone.iter().map(Value::to_string).collect();
                items.retain(|item| !gone.contains(&item.to_string()));
            }
            continue;
        }
        merge_field(ty, &mut original, name, given)?;
    }
    for (name, order) in patch {
        let Some(list) = name.strip_prefix(ORDER) else { continue };
        let order = order.as_array().ok_or_else(|| PatchError::DirectiveValue(name.clone()))?;
        let key = ty.and_then(|ty| ty.field(list)).and_then(|field| field.merge_key.as_deref());
        let server = before.get(list).map_or(&[][..], Vec::as_slice);
        if let Some(Value::Array(items)) = original.get_mut(list) {
            let (order, server) = (Places::of(order, key), Places::of(server, key));
            *items = lists::arrange(std::mem::take(items), &order, &server, key);
        }
    }
    Ok(original)
}

/// The lists that a patch puts into an order, as they are before it.
fn ordered(patch: &Entries, original: &Entries) -> BTreeMap<String, Vec<Value>> {
    let lists = patch.keys().filter_map(|name| name.strip_prefix(ORDER));
    lists.filter_map(|list| Some((list.to_owned(), original.get(list)?.as_array()?.clone()))).collect()
}

/// Keeps only the fields a patch names to stay.
fn retain(original: &mut Entries, patch: &Entries, keys: &Value) -> Result<(), PatchError> {
    // A set: a patch names as many fields as its writer likes.
    let keys: Option<BTreeSet<&str>> = keys.as_array().and_then(|keys| keys.iter().map(Value::as_str).collect());
    let keys = keys.ok_or_else(|| PatchError::DirectiveValue(RETAIN_KEYS.to_owned()))?;
    for (name, given) in patch {
        if !name.starts_with('$') && !given.is_null() && !keys.contains(name.as_str()) {
            return Err(PatchError::NotRetained(name.clone()));
        }
    }
    original.retain(|name, _| keys.contains(name.as_str()));
    Ok(())
}

fn merge_field(ty: Option<&Type>, original: &mut Entries, name: &str, given: &Value) -> Result<(), PatchError> {
    if given.is_null() {
        original.remove(name);
        return Ok(());
    }
    let field = ty.and_then(|ty| ty.field(name));
    let inner = field.map(|field| &*field.ty).or_else(|| map_values(ty));
    let present = original.remove(name);
    let merged = match (present, given) {
        (Some(Value::Object(present)), Value::Object(given)) if !replaces(field) => {
            Value::Object(merge_objects(inner, present, given)?)
        }
        (_, Value::Object(given)) => Value::Object(merge_objects(inner, Entries::new(), given)?),
        (present, Value::Array(given)) if merges(field) => {
            let present = if let Some(Value::Array(items)) = present { items } else { Vec::new() };
            let key = field.and_then(|field| field.merge_key.as_deref());
            Value::Array(lists::merge(item_type(inner), present, given, key)?)
        }
        (_, given) => given.clone(),
    };
    original.insert(name.to_owned(), merged);
    Ok(())
}

fn replaces(field: Option<&Field>) -> bool {
    field.is_some_and(|field| field.strategy.replace)
}

fn merges(field: Option<&Field>) -> bool {
    field.is_some_and(|field| field.strategy.merge)
}

fn map_values(ty: Option<&Type>) -> Option<&Type> {
    match &ty?.shape {
        Shape::Map(map) => Some(&map.values),
        _ => None,
    }
}

fn item_type(ty: Option<&Type>) -> Option<&Type> {
    match &ty?.shape {
        Shape::List(list) => Some(&list.items),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
