//! A structural schema as a type.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::builtin;
use crate::ty::{Field, GroupVersionKind, List, ListKind, Map, Object, Presence, Shape, Strategy, Text, Type, TypeRef};

/// The type of the objects of a kind.
pub(super) fn root(group: &str, version: &str, kind: &str, schema: &Value) -> Type {
    let mut object = match shape(schema) {
        Shape::Object(object) => object,
        _ => Object { open: true, ..Object::default() },
    };
    identify(&mut object);
    let mut ty = Type::unnamed(Shape::Object(object));
    ty.name = Text::Owned(kind.to_owned());
    ty.package = Text::Owned(format!("{group}/{version}"));
    let [group, version, kind] = [group, version, kind].map(|text| Text::Owned(text.to_owned()));
    ty.kind = Some(GroupVersionKind { group, version, kind });
    ty
}

/// Gives an object what every object of the API has.
fn identify(object: &mut Object) {
    object.fields.retain(|field| !matches!(field.name.as_ref(), "apiVersion" | "kind" | "metadata"));
    let text = || TypeRef::new(Type::unnamed(Shape::String));
    object.fields.push(field("apiVersion", text()));
    object.fields.push(field("kind", text()));
    object.fields.push(field("metadata", builtin::object_meta()));
    object.fields.sort_by(|a, b| a.name.cmp(&b.name));
}

fn field(name: &str, ty: TypeRef) -> Field {
    Field {
        name: Text::Owned(name.to_owned()),
        ty,
        required: false,
        presence: Presence::Explicit,
        atomic: None,
        merge_key: None,
        strategy: Strategy::default(),
        default: None,
    }
}

fn type_of(schema: &Value) -> TypeRef {
    TypeRef::new(Type::unnamed(shape(schema)))
}

fn shape(schema: &Value) -> Shape {
    let set = |name: &str| schema[name] == true;
    if set("x-kubernetes-int-or-string") {
        return Shape::IntOrString;
    }
    match schema["type"].as_str() {
        Some("string") => Shape::String,
        Some("boolean") => Shape::Bool,
        Some("number") => Shape::Double,
        Some("integer") if schema["format"] == "int32" => Shape::Int32,
        Some("integer") => Shape::Int64,
        Some("array") => {
            Shape::List(List { items: type_of(&schema["items"]), kind: list_kind(schema), wrapped: false })
        }
        Some("object") => object(schema),
        _ => Shape::Any,
    }
}

fn object(schema: &Value) -> Shape {
    let atomic = schema["x-kubernetes-map-type"] == "atomic";
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    let properties = schema["properties"].as_object();
    match &schema["additionalProperties"] {
        values @ Value::Object(_) => return Shape::Map(Map { values: type_of(values), atomic }),
        Value::Bool(true) => {
            return Shape::Map(Map { values: TypeRef::new(Type::unnamed(Shape::Any)), atomic });
        }
        _ => {}
    }
    if properties.is_none() && open && !embedded && !atomic {
        return Shape::Any;
    }
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    let required: BTreeSet<&str> = required.iter().filter_map(Value::as_str).collect();
    let mut object = Object { atomic, open, ..Object::default() };
    for (name, schema) in properties.into_iter().flatten() {
        let mut field = field(name, type_of(schema));
        field.required = required.contains(name.as_str());
        field.default = schema.get("default").cloned();
        object.fields.push(field);
    }
    object.fields.sort_by(|a, b| a.name.cmp(&b.name));
    if embedded {
        identify(&mut object);
    }
    Shape::Object(object)
}

fn list_kind(schema: &Value) -> ListKind {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
            ListKind::Map(keys.iter().filter_map(Value::as_str).map(|key| Text::Owned(key.to_owned())).collect())
        }
        _ => ListKind::Atomic,
    }
}
