//! OpenAPI v3 documents: one a group and version, made from the tables or from a CustomResourceDefinition's schema.
//!
//! They hold what clients read: every type with its merge behaviour, and for each resource the operations with their
//! parameters and content types. They hold no descriptions.

mod paths;
mod schemas;
pub mod v2;

use serde_json::{Map as JsonMap, Value, json};
use sha2::{Digest, Sha256};

use crate::builtin;

/// One resource of a document.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// Its kind, such as `Deployment`.
    pub kind: &'a str,
    /// Its name in URLs, such as `deployments`.
    pub plural: &'a str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Names of its subresources, such as `status`.
    pub subresources: &'a [&'a str],
    /// The `openAPIV3Schema` of a CustomResourceDefinition; `None` for a built-in kind.
    pub schema: Option<&'a Value>,
    /// The kind of its lists; `<kind>List` unless a definition says otherwise.
    pub list_kind: &'a str,
}

/// The document of one group (empty for the core group) and version.
pub fn document(group: &str, version: &str, served: &[Served<'_>]) -> Value {
    let mut schemas = schemas::Schemas::default();
    for resource in served {
        match resource.schema {
            Some(schema) => schemas.add_custom(group, version, resource, schema),
            None => {
                for kind in [resource.kind, resource.list_kind] {
                    if let Some(ty) = builtin::lookup_ref(group, version, kind) {
                        schemas.reference(&ty);
                    }
                }
            }
        }
        if resource.subresources.contains(&"scale")
            && let Some(ty) = builtin::lookup_ref("autoscaling", "v1", "Scale")
        {
            schemas.reference(&ty);
        }
    }
    for name in ["DeleteOptions", "Status", "Patch"] {
        schemas.reference_meta(name);
    }
    let mut paths = JsonMap::new();
    for resource in served {
        paths::add(&mut paths, group, version, resource);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.35.0"},
        "paths": paths,
        "components": {"schemas": schemas.into_map()},
    })
}

/// Where a document is, below `/openapi/v3/`: `api/v1` or `apis/<group>/<version>`.
pub fn location(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The index of documents, from each one's [`location`] and [`hash`].
pub fn index<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    let mut paths = JsonMap::new();
    for (location, hash) in documents {
        let url = format!("/openapi/v3/{location}?hash={hash}");
        paths.insert(location.to_owned(), json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// A name for a document's content, fit for URLs and ETags: equal for equal bytes.
pub fn hash(document: &[u8]) -> String {
    Sha256::digest(document).iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests;
