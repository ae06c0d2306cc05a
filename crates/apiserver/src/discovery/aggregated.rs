//! Discovery in one document.

use serde_json::{Value, json};

use crate::resources::{Resource, ResourceRegistry, Subresource};

/// What the document is sent as; clients compare it literally.
pub(super) const MEDIA_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The core group alone, or all others.
pub(super) fn document(registry: &ResourceRegistry, core: bool) -> Value {
    let groups = registry.groups();
    let items: Vec<Value> = groups
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions.iter().map(|v| version(registry, group, v)).collect();
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn version(registry: &ResourceRegistry, group: &str, version: &str) -> Value {
    let rows = registry.rows().filter(|r| r.group == group && r.version == version);
    let resources: Vec<Value> = rows.map(|row| resource(row)).collect();
    json!({"version": version, "freshness": "Current", "resources": resources})
}

fn resource(row: &Resource) -> Value {
    let mut entry = json!({
        "resource": row.plural,
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    if !row.subresources.is_empty() {
        entry["subresources"] = row.subresources.iter().map(|part| subresource(row, *part)).collect();
    }
    entry
}

fn subresource(row: &Resource, part: Subresource) -> Value {
    let (group, version, kind) = part.speaks().unwrap_or((row.group.as_str(), row.version.as_str(), row.kind.as_str()));
    json!({
        "subresource": part.path(),
        "responseKind": {"group": group, "version": version, "kind": kind},
        "verbs": part.verbs(),
    })
}
