//! `networking.internal.knative.dev`: from revisions and routes to what the gateway reads.

mod ingress;
mod serverless_service;
pub mod table;

use crate::Row;

/// Every controller of this module.
pub(crate) fn rows() -> Vec<Row> {
    vec![serverless_service::ROW, ingress::ROW]
}
