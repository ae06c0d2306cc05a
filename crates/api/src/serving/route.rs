//! Route: which Revisions answer under a name, and with what share.

use serde::{Deserialize, Serialize};

use crate::{object::resource, status};

/// A share of the traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficTarget {
    /// Gives the target a URL of its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// A fixed Revision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision_name: String,
    /// The latest ready Revision of this Configuration.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub configuration_name: String,
    /// Whether the latest ready Revision is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_revision: Option<bool>,
    /// Share of the traffic, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i64>,
    /// URL of the tag; only in status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Desired state of a Route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Shares; percents add up to 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficTarget>,
}

/// Observed state of a Route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: status::DuckStatus,
    /// Public URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Cluster-local address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<status::Addressable>,
    /// Traffic as it is routed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficTarget>,
}

resource!(
    /// `serving.knative.dev/v1` Route.
    Route, RouteSpec, RouteStatus
);
