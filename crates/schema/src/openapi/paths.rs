//! `paths`: the operations of each resource.

use serde_json::{Map as JsonMap, Value, json};

use super::schemas::{custom_definition, definition};
use super::{Served, location};
use crate::builtin;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

struct Writer<'a> {
    group: &'a str,
    version: &'a str,
    resource: &'a Served<'a>,
    custom: bool,
}

/// Adds the paths of one resource.
pub(super) fn add(paths: &mut JsonMap<String, Value>, group: &str, version: &str, resource: &Served<'_>) {
    let custom = resource.schema.is_some() || builtin::is_custom(group);
    let writer = Writer { group, version, resource, custom };
    let root = format!("/{}", location(group, version));
    let plural = resource.plural;
    let collection = if resource.namespaced {
        paths.insert(format!("{root}/{plural}"), writer.all_namespaces());
        format!("{root}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{root}/{plural}")
    };
    let item = format!("{collection}/{{name}}");
    for subresource in resource.subresources.iter().filter(|name| matches!(**name, "status" | "scale")) {
        paths.insert(format!("{item}/{subresource}"), writer.item(Some(subresource)));
    }
    paths.insert(item, writer.item(None));
    paths.insert(collection, writer.collection());
}

impl Writer<'_> {
    fn definition(&self, kind: &str) -> String {
        let package = format!("{}/{}", if self.group.is_empty() { "core" } else { self.group }, self.version);
        let name = if self.custom { custom_definition(&package, kind) } else { definition(&package, kind) };
        format!("#/components/schemas/{name}")
    }

    fn operation(&self, action: &str, scale: bool, parameters: &[&str]) -> Value {
        let (group, version, kind) =
            if scale { ("autoscaling", "v1", "Scale") } else { (self.group, self.version, self.resource.kind) };
        let answer = match action {
            "delete" | "deletecollection" => format!("#/components/schemas/{}", definition("meta/v1", "Status")),
            "list" => self.definition(self.resource.list_kind),
            _ => self.body_definition(scale),
        };
        let parameters: Vec<Value> = parameters.iter().map(|name| parameter(name)).collect();
        json!({
            "tags": [self.tag()],
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": {JSON: {"schema": {"$ref": answer}}}}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        })
    }

    fn tag(&self) -> String {
        let group = if self.group.is_empty() { "core" } else { self.group };
        format!("{}_{}", group.replace('.', "_"), self.version)
    }

    fn body_definition(&self, scale: bool) -> String {
        if scale {
            return format!("#/components/schemas/{}", definition("autoscaling/v1", "Scale"));
        }
        self.definition(self.resource.kind)
    }

    fn with_body(&self, mut operation: Value, scale: bool) -> Value {
        let reference = json!({"schema": {"$ref": self.body_definition(scale)}});
        let mut content = JsonMap::new();
        content.insert(JSON.into(), reference.clone());
        content.insert(YAML.into(), reference.clone());
        if !self.custom {
            content.insert(PROTOBUF.into(), reference);
        }
        operation["requestBody"] = json!({"required": true, "content": content});
        operation
    }

    fn with_patch(&self, mut operation: Value) -> Value {
        let patch = format!("#/components/schemas/{}", definition("meta/v1", "Patch"));
        let mut kinds =
            vec!["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
        if !self.custom {
            kinds.push("application/strategic-merge-patch+json");
        }
        let content: JsonMap<String, Value> =
            kinds.into_iter().map(|kind| (kind.to_owned(), json!({"schema": {"$ref": patch}}))).collect();
        operation["requestBody"] = json!({"required": true, "content": content});
        operation
    }

    fn all_namespaces(&self) -> Value {
        json!({"get": self.operation("list", false, LIST)})
    }

    fn collection(&self) -> Value {
        let mut path = json!({
            "get": self.operation("list", false, LIST),
            "post": self.with_body(self.operation("post", false, WRITE), false),
            "delete": self.operation("deletecollection", false, DELETE),
        });
        if self.resource.namespaced {
            path["parameters"] = json!([in_path("namespace")]);
        }
        path
    }

    fn item(&self, subresource: Option<&str>) -> Value {
        let scale = subresource == Some("scale");
        let mut path = json!({
            "get": self.operation("get", scale, &[]),
            "put": self.with_body(self.operation("put", scale, WRITE), scale),
            "patch": self.with_patch(self.operation("patch", scale, PATCH)),
            "parameters": [in_path("name")],
        });
        if subresource.is_none() {
            path["delete"] = self.operation("delete", false, DELETE);
        }
        if self.resource.namespaced
            && let Some(parameters) = path["parameters"].as_array_mut()
        {
            parameters.push(in_path("namespace"));
        }
        path
    }
}

const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "pretty"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force", "pretty"];
const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy", "pretty"];
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];

fn parameter(name: &str) -> Value {
    let kind = match name {
        "force" | "orphanDependents" | "watch" | "allowWatchBookmarks" | "sendInitialEvents" => "boolean",
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

fn in_path(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
}
