//! Metric: what to collect for a revision.

use serde::{Deserialize, Serialize};

use crate::{object::resource, status};

/// Desired state of a Metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricSpec {
    /// Stable window, nanoseconds.
    #[serde(default)]
    pub stable_window: i64,
    /// Panic window, nanoseconds.
    #[serde(default)]
    pub panic_window: i64,
    /// Service to scrape; empty when the gateway sees every request.
    #[serde(default)]
    pub scrape_target: String,
}

/// Observed state of a Metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: status::DuckStatus,
}

resource!(
    /// `autoscaling.internal.knative.dev/v1alpha1` Metric.
    Metric, MetricSpec, MetricStatus
);
