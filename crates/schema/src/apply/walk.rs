//! How a value is taken apart: as a leaf, field by field, or item by item.

use std::sync::LazyLock;

use serde_json::{Map as JsonMap, Value};

use super::set::{FieldSet, PathElement, canonical};
use crate::ty::{Field, List, ListKind, Shape, Text, Type};

static ANYTHING: LazyLock<Type> = LazyLock::new(|| Type::unnamed(Shape::Any));

/// A type where it is used: a field may override how its type is owned.
#[derive(Clone, Copy)]
pub(super) struct Use<'a> {
    pub(super) ty: &'a Type,
    atomic: Option<bool>,
}

/// How values of a type are taken apart.
pub(super) enum Granularity<'a> {
    /// Not at all.
    Leaf,
    /// Field by field.
    Fields,
    /// Item by item.
    Items(&'a List),
}

impl<'a> Use<'a> {
    pub(super) fn of(ty: &'a Type) -> Self {
        Self { ty, atomic: None }
    }

    fn of_field(field: &'a Field) -> Self {
        Self { ty: &field.ty, atomic: field.atomic }
    }

    /// How these values, all of this type, are taken apart. Values of another form than the type has are leaves.
    pub(super) fn granularity(self, values: &[Option<&Value>]) -> Granularity<'a> {
        let objects = || values.iter().flatten().all(|value| value.is_object() || value.is_null());
        let arrays = || values.iter().flatten().all(|value| value.is_array() || value.is_null());
        match &self.ty.shape {
            Shape::Object(object) if !self.atomic.unwrap_or(object.atomic) && objects() => Granularity::Fields,
            Shape::Map(map) if !self.atomic.unwrap_or(map.atomic) && objects() => Granularity::Fields,
            Shape::Any
                if self.atomic != Some(true) && values.iter().flatten().any(|value| value.is_object()) && objects() =>
            {
                Granularity::Fields
            }
            Shape::List(list) if list.kind != ListKind::Atomic && arrays() => Granularity::Items(list),
            _ => Granularity::Leaf,
        }
    }

    /// The use behind a field or an entry.
    pub(super) fn field(self, name: &str) -> Use<'a> {
        match &self.ty.shape {
            Shape::Object(object) => object.field(name).map_or(Use::of(&ANYTHING), Use::of_field),
            Shape::Map(map) => Use::of(&map.values),
            _ => Use::of(&ANYTHING),
        }
    }

    /// True when the name is one of the type's own fields, not an entry of a map.
    pub(super) fn declares(self, name: &str) -> bool {
        self.ty.field(name).is_some()
    }
}

/// The type behind a step.
pub(super) fn child<'a>(ty: &'a Type, element: &PathElement) -> Option<&'a Type> {
    match (element, &ty.shape) {
        (PathElement::Field(name), Shape::Object(object)) => object.field(name).map(|field| &*field.ty),
        (PathElement::Field(_), Shape::Map(map)) => Some(&map.values),
        (_, Shape::List(list)) => Some(&list.items),
        _ => None,
    }
}

/// The step to an item of a list.
///
/// # Errors
/// The first key field the item lacks, when that field has no default.
pub(super) fn item(list: &List, value: &Value) -> Result<PathElement, Text> {
    let ListKind::Map(keys) = &list.kind else { return Ok(PathElement::Value(value.to_string())) };
    let mut key = JsonMap::new();
    for name in keys {
        let default = || list.items.field(name).and_then(|field| field.default.as_ref());
        match value.get(name.as_ref()).filter(|value| !value.is_null()).or_else(default) {
            Some(part) => drop(key.insert(name.to_string(), part.clone())),
            None => return Err(name.clone()),
        }
    }
    Ok(PathElement::Key(canonical(key)))
}

/// The steps to all items of a list. Items that lack their key are told apart by place.
pub(super) fn items(list: &List, values: Option<&Value>) -> Vec<PathElement> {
    let values = values.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    values.iter().enumerate().map(|(at, value)| item(list, value).unwrap_or(PathElement::Index(at))).collect()
}

/// True for what counts as nothing in an object or list.
pub(super) fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(entries)) => entries.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

/// All paths somebody owns who gave this value.
pub(super) fn field_set(ty: &Type, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    add(Use::of(ty), value, &mut Vec::new(), &mut set);
    set
}

fn add(usage: Use<'_>, value: &Value, path: &mut Vec<PathElement>, set: &mut FieldSet) {
    match (usage.granularity(&[Some(value)]), value) {
        (Granularity::Leaf, _) => set.insert(path),
        (Granularity::Fields, Value::Object(entries)) => {
            for (name, inner) in entries {
                path.push(PathElement::Field(name.clone()));
                add(usage.field(name), inner, path, set);
                let empty = inner.is_null() || inner.as_object().is_some_and(JsonMap::is_empty);
                if empty || !usage.declares(name) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Granularity::Items(list), Value::Array(values)) => {
            for (element, inner) in items(list, Some(value)).into_iter().zip(values) {
                path.push(element);
                add(Use::of(&list.items), inner, path, set);
                set.insert(path);
                path.pop();
            }
        }
        _ => {}
    }
}
