//! Service: a Configuration and a Route under one name.

use serde::{Deserialize, Serialize};

use super::{RevisionTemplate, TrafficTarget};
use crate::{object::resource, status};

/// Desired state of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Template of the Revisions.
    #[serde(default)]
    pub template: RevisionTemplate,
    /// Shares of the traffic; empty means all to the latest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficTarget>,
}

/// Observed state of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: status::DuckStatus,
    /// As the Configuration reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_created_revision_name: Option<String>,
    /// As the Configuration reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_ready_revision_name: Option<String>,
    /// As the Route reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// As the Route reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<status::Addressable>,
    /// As the Route reports it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficTarget>,
}

resource!(
    /// `serving.knative.dev/v1` Service.
    Service, ServiceSpec, ServiceStatus
);
