//! Empties a namespace of what no controller knows: every kind that the API server offers.

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    api::{Answer, Api, ApiError},
    discovery::{ResourceRow, Resources},
};

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: GroupVersion,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

/// Deletes everything in `namespace` that can be deleted as a collection.
///
/// # Errors
/// When something is left, which finalizers may hold; the caller comes again.
pub(crate) async fn delete_content(api: &Api, namespace: &str) -> Result<(), ApiError> {
    let mut left = Vec::new();
    for root in roots(api).await? {
        let resources: Resources = api.send(Method::GET, &root, None).await?;
        for resource in resources.resources.iter().filter(|resource| is_content(resource)) {
            let path = format!("{root}/namespaces/{namespace}/{}", resource.name);
            if !is_empty(api, &path).await? {
                // Whether the deletion was complete is asked below, not read from its answer.
                let _answer: Answer = api.send(Method::DELETE, &path, None).await?;
                if !is_empty(api, &path).await? {
                    left.push(resource.name.clone());
                }
            }
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    let message = format!("namespace {namespace} still holds {}", left.join(", "));
    Err(ApiError::Refused { code: 503, reason: "ContentRemaining".into(), message, about: String::new() })
}

/// Paths of every group's preferred version.
async fn roots(api: &Api) -> Result<Vec<String>, ApiError> {
    let groups: Groups = api.send(Method::GET, "/apis", None).await?;
    let named = groups.groups.into_iter().map(|group| format!("/apis/{}", group.preferred_version.group_version));
    Ok(std::iter::once("/api/v1".to_owned()).chain(named).collect())
}

/// Whether a resource has a collection of its own in a namespace. Events of both groups are one store.
fn is_content(resource: &ResourceRow) -> bool {
    let can = |verb: &str| resource.verbs.iter().any(|one| one == verb);
    resource.namespaced && !resource.name.contains('/') && can("deletecollection") && can("list")
}

async fn is_empty(api: &Api, path: &str) -> Result<bool, ApiError> {
    let list: Value = api.send(Method::GET, &format!("{path}?limit=1"), None).await?;
    Ok(list["items"].as_array().is_none_or(Vec::is_empty))
}
