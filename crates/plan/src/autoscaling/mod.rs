//! `autoscaling.internal.knative.dev`: how many instances there are.

pub(crate) mod annotations;
mod deciders;
mod metric;
mod pod_autoscaler;

pub use deciders::{DECIDER_KINDS, FollowedRevision, decider};

use crate::Row;

/// Every controller of this module.
pub(crate) fn rows() -> Vec<Row> {
    vec![pod_autoscaler::ROW, metric::ROW]
}
