//! `serving.knative.dev`: from what users write to the objects that run and route it.

mod configuration;
mod domain_mapping;
mod filled;
mod labeler;
pub(crate) mod revision;
mod revision_gc;
pub(crate) mod route;
mod service;

use crate::Row;

/// Every controller of this module.
pub(crate) fn rows() -> Vec<Row> {
    vec![
        service::ROW,
        configuration::ROW,
        labeler::ROW,
        revision::ROW,
        revision_gc::ROW,
        route::ROW,
        domain_mapping::ROW,
    ]
}
