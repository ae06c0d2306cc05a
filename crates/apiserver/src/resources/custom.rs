//! Custom resources: rows made from CustomResourceDefinitions.

use std::sync::Arc;

use knoll_schema::crd::Schema;
use serde_json::Value;

use super::{Resource, ScalePaths, Subresource};
use crate::{
    object,
    tables::{PathColumn, Printer},
};

/// What a custom resource knows beyond its row.
#[derive(Clone, Default)]
pub struct Custom {
    /// The version's `openAPIV3Schema`; null when there is none.
    pub schema: Value,
    /// The schema, ready for use; the compiled-in tables know Knative's kinds.
    pub structural: Option<Schema>,
    /// JSON paths that field selectors may name, as they are written there (`.spec.x`).
    pub selectable: Vec<String>,
    /// Whether it is one of Knative's own kinds, whose admission is compiled in.
    pub knative: bool,
    /// uid of the definition: another one of the same name is another.
    pub uid: String,
    /// What clients are told of this version, if they should use another.
    pub deprecation: Option<String>,
    /// Whether the definition is being deleted: its objects go, and none is made.
    pub terminating: bool,
}

/// The rows of a definition, one a served version.
pub fn from_definition(definition: &Value) -> Vec<Resource> {
    let spec = &definition["spec"];
    let versions = object::list(spec, "/versions");
    versions.iter().filter(|v| v["served"] == true).map(|version| row(definition, spec, version)).collect()
}

fn row(definition: &Value, spec: &Value, version: &Value) -> Resource {
    let names = &spec["names"];
    let strings = |pointer: &str| -> Vec<String> {
        object::list(names, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let text = |value: &Value, pointer: &str| object::text(value, pointer).to_owned();
    let mut row = Resource::new(
        object::text(spec, "/group"),
        object::text(version, "/name"),
        object::text(names, "/plural"),
        object::text(names, "/kind"),
    );
    row.singular = text(names, "/singular");
    row.list_kind = text(names, "/listKind");
    row.namespaced = spec["scope"] != "Cluster";
    row.short_names = strings("/shortNames");
    row.categories = strings("/categories");
    row.unconditional_update = false;
    if version.pointer("/subresources/status").is_some() {
        row.subresources.push(Subresource::Status);
    }
    if let Some(scale) = version.pointer("/subresources/scale") {
        row.subresources.push(Subresource::Scale);
        row.scale = Some(ScalePaths {
            spec: to_pointer(object::text(scale, "/specReplicasPath")),
            status: to_pointer(object::text(scale, "/statusReplicasPath")),
            selector: to_pointer(object::text(scale, "/labelSelectorPath")),
        });
    }
    row.printer = Printer::Paths(Arc::new(PathColumn::from_definition(version)));
    let schema = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or(Value::Null);
    let deprecation = (version["deprecated"] == true).then(|| {
        let said = version["deprecationWarning"].as_str().map(str::to_owned);
        said.unwrap_or_else(|| deprecation(&row.group, &row.version, &row.kind))
    });
    row.custom = Some(Arc::new(Custom {
        structural: Some(Schema::new(&row.group, &row.version, &row.kind, &schema)),
        schema,
        selectable: object::list(version, "/selectableFields")
            .iter()
            .map(|field| object::text(field, "/jsonPath").to_owned())
            .collect(),
        knative: false,
        deprecation,
        uid: object::uid(definition).to_owned(),
        terminating: object::is_deleting(definition),
    }));
    row
}

/// What is said of a deprecated version whose definition says no more.
pub(super) fn deprecation(group: &str, version: &str, kind: &str) -> String {
    format!("{group}/{version} {kind} is deprecated")
}

/// `.spec.replicas` as `/spec/replicas`.
fn to_pointer(path: &str) -> String {
    path.replace('.', "/")
}
