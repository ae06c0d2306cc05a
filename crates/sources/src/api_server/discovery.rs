//! Where in the API the objects of a kind are: asked from the server, since kinds may be of users' own making.

use http::Method;
use knoll_client::{Client, Error, JSON};
use serde::Deserialize;

use crate::Resource;

/// Where objects of a kind are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `/api/v1` or `/apis/group/version`.
    root: String,
    plural: String,
    pub(super) is_namespaced: bool,
}

impl Place {
    /// The path of a collection: of one namespace, or of all.
    pub(super) fn path(&self, namespace: Option<&str>) -> String {
        let Self { root, plural, .. } = self;
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
            None => format!("{root}/{plural}"),
        }
    }
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    resources: Vec<Served>,
}

#[derive(Deserialize)]
struct Served {
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

/// Finds a kind.
///
/// # Errors
/// When it is not served, cannot be watched, or the server does not answer: why.
pub(super) async fn find(client: &Client, resource: &Resource) -> Result<Place, String> {
    let Resource { api_version, kind, .. } = resource;
    let root = if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") };
    let listed = client.call(Method::GET, &root, JSON, None).await;
    let listed = listed.and_then(|answer| serde_json::from_slice::<Listed>(&answer).map_err(Error::Answer));
    let listed = listed.map_err(|error| match error {
        Error::Api(status) if status.code == 404 => format!("{api_version} is not served"),
        Error::Request(_) => format!("{api_version:?} is no group and version"),
        other => format!("{api_version} cannot be looked up: {}", knoll_faults::chain(&other)),
    })?;
    let of_kind = |served: &&Served| *served.kind == **kind && !served.name.contains('/');
    let found = listed.resources.iter().find(of_kind);
    let served = found.ok_or_else(|| format!("{api_version} has no kind {kind}"))?;
    if !served.verbs.iter().any(|verb| verb == "watch") {
        return Err(format!("{kind} of {api_version} cannot be watched"));
    }
    Ok(Place { root, plural: served.name.clone(), is_namespaced: served.namespaced })
}
