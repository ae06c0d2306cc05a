//! What the data plane tells the autoscaler.

use crate::Key;

/// Requests of one revision over one reporting period, as its gateway saw them.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionStat {
    /// The Revision.
    pub revision: Key,
    /// Time-weighted mean of requests in the system (queued and running) over the period.
    pub average_concurrency: f64,
    /// Requests that arrived in the period.
    pub request_count: f64,
    /// Length of the period, seconds.
    pub period_seconds: f64,
}
