//! `serving.knative.dev`: from what users write to the objects that run and route it.

mod configuration;
mod labeler;
pub(crate) mod revision;
pub(crate) mod route;
mod service;

use crate::Row;

/// Every controller of this module.
pub(crate) fn rows() -> Vec<Row> {
    vec![service::ROW, configuration::ROW, labeler::ROW, revision::ROW, route::ROW]
}
