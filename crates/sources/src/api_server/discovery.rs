//! Where in the API the objects of a kind are: asked from the server, since kinds may be of users' own making.

use http::Request;
use kube::Client;
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
    let request = Request::get(&root).header("accept", "application/json").body(Vec::new());
    let request = request.map_err(|_| format!("{api_version:?} is no group and version"))?;
    let listed = client.request::<Listed>(request).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 404 => format!("{api_version} is not served"),
        kube::Error::Api(status) => format!("{api_version} cannot be looked up: {}: {}", status.reason, status.message),
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
