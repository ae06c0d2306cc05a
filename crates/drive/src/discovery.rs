//! What the API server serves: kinds that no controller knows are found by it.

use std::collections::BTreeSet;

use http::Method;
use knoll_api::Kind;
use knoll_plan::{GroupKind, ServedKind};
use serde::Deserialize;

use crate::api::{Api, ApiError};

/// Resources of one version of a group.
#[derive(Deserialize)]
pub(crate) struct Resources {
    #[serde(default)]
    pub(crate) resources: Vec<ResourceRow>,
}

/// A resource.
#[derive(Deserialize)]
pub(crate) struct ResourceRow {
    /// Its plural; with a subresource after a slash.
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) namespaced: bool,
    #[serde(default)]
    pub(crate) verbs: Vec<String>,
}

/// Why a kind is not found, in words for the user.
pub(crate) enum NotFound {
    /// It is not served, or cannot be watched.
    Absent(String),
    /// The server does not answer.
    Unknown(String),
}

/// Path of the collection of all objects of a kind.
///
/// # Errors
/// When it is not served or cannot be watched, or the server does not answer.
pub(crate) async fn find(api: &Api, api_version: &str, kind: &str) -> Result<String, NotFound> {
    let root = format!("/apis/{api_version}");
    let found: Resources = api.send(Method::GET, &root, None).await.map_err(|error| match error {
        ApiError::Refused { code: 404, .. } => NotFound::Absent(format!("{api_version} is not served")),
        other => NotFound::Unknown(format!("{api_version} cannot be looked up: {}", knoll_faults::chain(&other))),
    })?;
    let row = found.resources.iter().find(|row| row.kind == kind && !row.name.contains('/'));
    let row = row.ok_or_else(|| NotFound::Absent(format!("{api_version} has no kind {kind}")))?;
    if !row.verbs.iter().any(|verb| verb == "watch") {
        return Err(NotFound::Absent(format!("{kind} of {api_version} cannot be watched")));
    }
    Ok(format!("{root}/{}", row.name))
}

/// Groups of a discovery document.
#[derive(Default, Deserialize)]
struct Groups {
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: GroupMeta,
    /// The preferred first.
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct GroupMeta {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<ServedResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServedResource {
    resource: String,
    #[serde(default)]
    response_kind: ResponseKind,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Default, Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

/// Every kind that is served, that controllers do not know as a type and whose objects can be followed and deleted: those
/// that Kubernetes brings first. Events own nothing, as elsewhere.
pub(crate) async fn served(api: &Api) -> Result<Vec<ServedKind>, ApiError> {
    let mut kinds = Vec::new();
    for path in ["/api", "/apis"] {
        let document: Groups = api.discover(path).await?;
        document.items.into_iter().for_each(|group| kinds.extend(kinds_of(group)));
    }
    let is_custom = |kind: &ServedKind| kind.name.group.contains('.') && !kind.name.group.ends_with(".k8s.io");
    kinds.sort_by_cached_key(|kind| (is_custom(kind), kind.name.clone()));
    Ok(kinds)
}

/// The kinds of a group, each in the first version that has it.
fn kinds_of(group: Group) -> Vec<ServedKind> {
    let Group { metadata: GroupMeta { name: group }, versions } = group;
    let mut seen = BTreeSet::new();
    let mut kinds = Vec::new();
    for Version { version, resources } in versions {
        for resource in resources {
            let kind = resource.response_kind.kind;
            let can = |verb: &&str| resource.verbs.iter().any(|one| one == verb);
            let is_event = kind == "Event" && matches!(group.as_str(), "" | "events.k8s.io");
            let is_followed = ["list", "watch", "delete"].iter().all(can) && !is_event;
            if is_followed && Kind::in_any_version(&group, &kind).is_none() && seen.insert(kind.clone()) {
                kinds.push(ServedKind {
                    name: GroupKind { group: group.clone(), kind },
                    version: version.clone(),
                    plural: resource.resource,
                    is_namespaced: resource.scope == "Namespaced",
                });
            }
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_that_controllers_do_not_know_are_followed_in_their_first_version() {
        let resource = |plural: &str, kind: &str, verbs: &[&str]| {
            json!({"resource": plural, "scope": "Namespaced", "verbs": verbs,
                   "responseKind": {"group": "example.com", "version": "v1", "kind": kind}})
        };
        let all = ["list", "watch", "delete"];
        let group = json!({"metadata": {"name": "example.com"}, "versions": [
            {"version": "v2", "resources": [resource("things", "Thing", &all), resource("reviews", "Review", &["create"])]},
            {"version": "v1", "resources": [resource("things", "Thing", &all), resource("olds", "Old", &all)]}]});
        let kinds = kinds_of(serde_json::from_value(group).expect("a group"));
        let paths: Vec<String> = kinds.iter().map(|kind| kind.collection_path(None)).collect();
        assert_eq!(paths, ["/apis/example.com/v2/things", "/apis/example.com/v1/olds"]);
        let core = json!({"versions": [{"version": "v1", "resources": [
            resource("pods", "Pod", &all), resource("events", "Event", &all), resource("podtemplates", "PodTemplate", &all)]}]});
        let kinds = kinds_of(serde_json::from_value(core).expect("a group"));
        assert_eq!(
            kinds.iter().map(|kind| kind.collection_path(Some("a"))).collect::<Vec<_>>(),
            ["/api/v1/namespaces/a/podtemplates"]
        );
    }
}
