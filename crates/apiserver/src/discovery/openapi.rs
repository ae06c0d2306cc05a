//! OpenAPI v3: an index, and a document a group and version.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use knoll_schema::openapi::{self, Served};
use serde_json::Value;

use crate::{
    ApiServer,
    body::{self, Body},
    query::Query,
    resources::Registry,
    respond,
    status::Status,
};

/// A document and its hash.
type Document = (String, Bytes);

/// Documents of one generation of the registry, made when first asked for.
#[derive(Default)]
pub(crate) struct Documents(Mutex<(u64, BTreeMap<String, Document>)>);

impl Documents {
    /// All documents by location.
    fn all(&self, registry: &Registry) -> BTreeMap<String, Document> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0 != registry.generation {
            *kept = (registry.generation, make(registry));
        }
        kept.1.clone()
    }
}

fn make(registry: &Registry) -> BTreeMap<String, Document> {
    let mut documents = BTreeMap::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            let bytes = Bytes::from(document(registry, group, version).to_string());
            documents.insert(openapi::location(group, version), (openapi::hash(&bytes), bytes));
        }
    }
    documents
}

fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let rows: Vec<_> = registry.rows().filter(|r| r.group == group && r.version == version).collect();
    let parts: Vec<Vec<&str>> = rows.iter().map(|r| r.subresources.iter().map(|p| p.path()).collect()).collect();
    let served: Vec<Served<'_>> = rows
        .iter()
        .zip(&parts)
        .map(|(row, subresources)| Served {
            kind: &row.kind,
            plural: &row.plural,
            namespaced: row.namespaced,
            subresources,
            schema: row.custom.as_ref().filter(|c| !c.knative).map(|c| &c.schema),
            list_kind: &row.list_kind,
        })
        .collect();
    openapi::document(group, version, &served)
}

/// `/openapi/v3` and what lies below it.
pub(super) fn answer(
    server: &Arc<ApiServer>,
    request: &Request<Body>,
    query: &Query,
    location: &str,
) -> Result<Response<Body>, Status> {
    let documents = server.documents.all(&server.registry());
    if location.is_empty() {
        let index = openapi::index(documents.iter().map(|(location, (hash, _))| (location.as_str(), hash.as_str())));
        return Ok(super::cached(request, "application/json", index.to_string().into_bytes()));
    }
    let Some((hash, document)) = documents.get(location) else {
        return Ok(respond::text(404, "404 page not found\n"));
    };
    let asked = query.get("hash");
    if !asked.is_empty() && asked != hash {
        let mut response = respond::with_type(301, "application/json", body::empty());
        if let Ok(value) = HeaderValue::from_str(&format!("/openapi/v3/{location}?hash={hash}")) {
            response.headers_mut().insert(header::LOCATION, value);
        }
        return Ok(response);
    }
    let mut response = super::tagged(request, "application/json", document.clone(), &format!("\"{hash}\""));
    if asked == hash {
        // The address names the content, so it never changes.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(response)
}
