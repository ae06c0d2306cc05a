//! `components.schemas`.

use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value, json};

use super::Served;
use crate::builtin;
use crate::ty::{Field, List, ListKind, Object, Shape, Text, Type, TypeRef};

/// Definitions met so far.
#[derive(Default)]
pub(super) struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    pub(super) fn into_map(self) -> JsonMap<String, Value> {
        self.0.into_iter().collect()
    }

    /// Defines a named type, and all it refers to; answers the schema that refers to it.
    pub(super) fn reference(&mut self, ty: &TypeRef) -> Value {
        let name = definition(&ty.package, &ty.name);
        if !self.0.contains_key(&name) {
            // Holds the place, so that types in a circle end.
            self.0.insert(name.clone(), Value::Null);
            let mut schema = self.shape(ty);
            if let (Some(kind), Value::Object(schema)) = (&ty.kind, &mut schema) {
                let id = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
                schema.insert("x-kubernetes-group-version-kind".into(), json!([id]));
            }
            self.0.insert(name.clone(), schema);
        }
        refer(&name)
    }

    /// Defines a type of `meta/v1` that requests and answers of every resource use.
    pub(super) fn reference_meta(&mut self, name: &'static str) {
        if name == "Patch" {
            self.0.insert(definition("meta/v1", "Patch"), json!({"type": "object"}));
        } else if let Some(ty) = builtin::lookup_ref("meta", "v1", name) {
            self.reference(&ty);
        }
    }

    /// Defines a kind by the schema of its CustomResourceDefinition, and its list.
    pub(super) fn add_custom(&mut self, group: &str, version: &str, resource: &Served<'_>, schema: &Value) {
        let meta = self.reference(&builtin::object_meta());
        let mut root = schema.as_object().cloned().unwrap_or_default();
        root.insert("type".into(), json!("object"));
        let properties = root.entry("properties").or_insert_with(|| json!({}));
        properties["apiVersion"] = json!({"type": "string"});
        properties["kind"] = json!({"type": "string"});
        properties["metadata"] = json!({"allOf": [meta]});
        let id = |kind: &str| json!([{"group": group, "version": version, "kind": kind}]);
        root.insert("x-kubernetes-group-version-kind".into(), id(resource.kind));
        let package = format!("{group}/{version}");
        let name = custom_definition(&package, resource.kind);
        self.0.insert(name.clone(), Value::Object(root));
        let list_meta = self.reference(&builtin::named("meta/v1", "ListMeta"));
        let list = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"allOf": [list_meta]},
                "items": {"type": "array", "items": refer(&name)},
            },
            "x-kubernetes-group-version-kind": id(resource.list_kind),
        });
        self.0.insert(custom_definition(&package, resource.list_kind), list);
    }

    /// The schema of a type where it is used.
    fn schema(&mut self, ty: &TypeRef) -> Value {
        if !ty.name.is_empty() {
            return json!({"allOf": [self.reference(ty)]});
        }
        let leaf = match &ty.shape {
            Shape::Time => Some(("meta/v1", "Time")),
            Shape::MicroTime => Some(("meta/v1", "MicroTime")),
            Shape::Duration => Some(("meta/v1", "Duration")),
            Shape::FieldsV1 => Some(("meta/v1", "FieldsV1")),
            Shape::Quantity => Some(("resource", "Quantity")),
            Shape::IntOrString => Some(("intstr", "IntOrString")),
            Shape::Raw => Some(("runtime", "RawExtension")),
            Shape::Json => Some(("apiextensions.k8s.io/v1", "JSON")),
            Shape::SchemaOrArray => Some(("apiextensions.k8s.io/v1", "JSONSchemaPropsOrArray")),
            Shape::SchemaOrBool => Some(("apiextensions.k8s.io/v1", "JSONSchemaPropsOrBool")),
            Shape::SchemaOrStrings => Some(("apiextensions.k8s.io/v1", "JSONSchemaPropsOrStringArray")),
            _ => None,
        };
        let Some((package, name)) = leaf else { return self.shape(ty) };
        let name = definition(package, name);
        let schema = self.shape(ty);
        self.0.insert(name.clone(), schema);
        json!({"allOf": [refer(&name)]})
    }

    /// What a type is, spelled out.
    fn shape(&mut self, ty: &Type) -> Value {
        match &ty.shape {
            Shape::String | Shape::Duration => json!({"type": "string"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
            Shape::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            Shape::IntOrString => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            Shape::FieldsV1 | Shape::Raw => json!({"type": "object"}),
            Shape::Any => json!({"x-kubernetes-preserve-unknown-fields": true}),
            Shape::Json | Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => json!({}),
            Shape::Object(object) => self.object(object),
            Shape::Map(map) => {
                let mut schema = json!({"type": "object", "additionalProperties": self.schema(&map.values)});
                if map.atomic {
                    schema["x-kubernetes-map-type"] = json!("atomic");
                }
                schema
            }
            Shape::List(list) => self.list(list),
        }
    }

    fn list(&mut self, list: &List) -> Value {
        let mut schema = json!({"type": "array", "items": self.schema(&list.items)});
        match &list.kind {
            ListKind::Atomic => schema["x-kubernetes-list-type"] = json!("atomic"),
            ListKind::Set => schema["x-kubernetes-list-type"] = json!("set"),
            ListKind::Map(keys) => {
                schema["x-kubernetes-list-type"] = json!("map");
                schema["x-kubernetes-list-map-keys"] = json!(keys);
            }
        }
        schema
    }

    fn object(&mut self, object: &Object) -> Value {
        let mut properties = JsonMap::new();
        for field in &object.fields {
            properties.insert(field.name.to_string(), self.field(field));
        }
        let mut schema = json!({"type": "object", "properties": properties});
        let required: Vec<&Text> =
            object.fields.iter().filter(|field| field.required).map(|field| &field.name).collect();
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if object.atomic {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
        if object.open {
            schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
        }
        schema
    }

    fn field(&mut self, field: &Field) -> Value {
        let mut schema = self.schema(&field.ty);
        if let Some(key) = &field.merge_key {
            schema["x-kubernetes-patch-merge-key"] = json!(key);
        }
        let strategy = field.strategy;
        let names: Vec<&str> =
            [(strategy.merge, "merge"), (strategy.replace, "replace"), (strategy.retain_keys, "retainKeys")]
                .into_iter()
                .filter_map(|(on, name)| on.then_some(name))
                .collect();
        if !names.is_empty() {
            schema["x-kubernetes-patch-strategy"] = json!(names.join(","));
        }
        if let Some(atomic) = field.atomic {
            schema["x-kubernetes-map-type"] = json!(if atomic { "atomic" } else { "granular" });
        }
        if let Some(default) = &field.default {
            schema["default"] = default.clone();
        }
        schema
    }
}

fn refer(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The name of a built-in type's definition.
pub(super) fn definition(package: &str, name: &str) -> String {
    let (group, version) = package.split_once('/').unwrap_or((package, ""));
    match group {
        "resource" => format!("io.k8s.apimachinery.pkg.api.resource.{name}"),
        "intstr" => format!("io.k8s.apimachinery.pkg.util.intstr.{name}"),
        "runtime" => format!("io.k8s.apimachinery.pkg.runtime.{name}"),
        "meta" => format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{name}"),
        "apiextensions.k8s.io" => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{name}")
        }
        "apiregistration.k8s.io" => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{name}"),
        _ if builtin::is_custom(group) => custom_definition(package, name),
        _ => format!("io.k8s.api.{}.{version}.{name}", group.split('.').next().unwrap_or(group)),
    }
}

/// The name of a custom kind's definition: its group backwards.
pub(super) fn custom_definition(package: &str, name: &str) -> String {
    let (group, version) = package.split_once('/').unwrap_or((package, ""));
    let backwards: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{name}", backwards.join("."))
}
