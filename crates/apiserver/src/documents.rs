//! The OpenAPI documents of what is served, made when first asked for after it changed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use knoll_schema::openapi::{self, Served};
use serde_json::Value;

use crate::resources::ResourceRegistry;

/// A document and its hash.
pub(crate) type Document = (String, Bytes);

/// In which form the document of OpenAPI v2 is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    Json,
    Protobuf,
}

/// Documents of one generation of the registry, made when first asked for.
#[derive(Default)]
pub(crate) struct Documents(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    generation: u64,
    /// Of v3, by location.
    documents: BTreeMap<String, Document>,
    /// Of v2, in the forms that were asked for.
    all_in_one: BTreeMap<Form, Document>,
}

impl Documents {
    /// All documents by location.
    pub(crate) fn all(&self, registry: &ResourceRegistry) -> BTreeMap<String, Document> {
        self.kept(registry).documents.clone()
    }

    /// The document of OpenAPI v2, which describes everything.
    pub(crate) fn all_in_one(&self, registry: &ResourceRegistry, form: Form) -> Document {
        let mut kept = self.kept(registry);
        if let Some(document) = kept.all_in_one.get(&form) {
            return document.clone();
        }
        let parts = kept.documents.values().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok());
        let document = openapi::v2::document(parts);
        let bytes = Bytes::from(match form {
            Form::Json => document.to_string().into_bytes(),
            Form::Protobuf => openapi::v2::encode(&document),
        });
        let document = (openapi::hash(&bytes), bytes);
        kept.all_in_one.insert(form, document.clone());
        document
    }

    fn kept(&self, registry: &ResourceRegistry) -> MutexGuard<'_, Kept> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.generation != registry.generation {
            let all_in_one = BTreeMap::new();
            *kept = Kept { generation: registry.generation, documents: make(registry), all_in_one };
        }
        kept
    }
}

fn make(registry: &ResourceRegistry) -> BTreeMap<String, Document> {
    let mut documents = BTreeMap::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            let bytes = Bytes::from(document(registry, group, version).to_string());
            documents.insert(openapi::location(group, version), (openapi::hash(&bytes), bytes));
        }
    }
    documents
}

fn document(registry: &ResourceRegistry, group: &str, version: &str) -> Value {
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
