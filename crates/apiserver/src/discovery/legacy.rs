//! Discovery, one document a group and version.

use serde_json::{Value, json};

use crate::resources::{Resource, ResourceRegistry, Subresource};

/// `/api`.
pub(super) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`.
pub(super) fn groups(registry: &ResourceRegistry) -> Value {
    let groups = registry.groups();
    let groups: Vec<Value> = groups.iter().filter(|(g, _)| !g.is_empty()).map(|(g, v)| one(g, v)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub(super) fn group(registry: &ResourceRegistry, group: &str) -> Value {
    let groups = registry.groups();
    let mut document = one(group, groups.get(group).map(Vec::as_slice).unwrap_or_default());
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    document
}

fn one(group: &str, versions: &[&str]) -> Value {
    let version = |v: &&str| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    let all: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": group, "versions": all, "preferredVersion": all.first()})
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub(super) fn resources(registry: &ResourceRegistry, group: &str, version: &str) -> Value {
    let rows = registry.rows().filter(|r| r.group == group && r.version == version);
    let resources: Vec<Value> = rows
        .flat_map(|row| {
            std::iter::once(resource(row)).chain(row.subresources.iter().map(|part| subresource(row, *part)))
        })
        .collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

fn resource(row: &Resource) -> Value {
    let mut entry = json!({
        "name": row.plural,
        "singularName": row.singular,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    entry
}

fn subresource(row: &Resource, part: Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", row.plural, part.path()),
        "singularName": "",
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": part.verbs(),
    });
    if let Some((group, version, kind)) = part.speaks() {
        entry["kind"] = kind.into();
        entry["version"] = version.into();
        if !group.is_empty() {
            entry["group"] = group.into();
        }
    }
    entry
}
