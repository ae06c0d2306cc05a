//! The OpenAPI documents of what is served, made when first asked for after it changed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use knoll_schema::openapi::{self, Served};
use serde_json::Value;

use crate::resources::Registry;

/// A document and its hash.
pub(crate) type Document = (String, Bytes);

/// Documents of one generation of the registry, made when first asked for.
#[derive(Default)]
pub(crate) struct Documents(Mutex<(u64, BTreeMap<String, Document>)>);

impl Documents {
    /// All documents by location.
    pub(crate) fn all(&self, registry: &Registry) -> BTreeMap<String, Document> {
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
