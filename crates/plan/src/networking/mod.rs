//! `networking.internal.knative.dev`: from revisions and routes to what the gateway reads.

mod ingress;
mod serverless_service;
pub mod table;

use crate::Row;

/// Controllers of what revisions are reached by.
pub(crate) fn controllers() -> Vec<Row> {
    vec![serverless_service::ROW]
}

/// Controllers of what this process' gateway routes.
pub(crate) fn gateway() -> Vec<Row> {
    vec![ingress::ROW]
}
