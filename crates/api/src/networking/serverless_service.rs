//! ServerlessService: whether a revision's Service points at its instances or at who wakes them.

use k8s_openapi::api::core::v1::ObjectReference;
use serde::{Deserialize, Serialize};

use crate::{object::resource, status};

/// Desired state of a ServerlessService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerlessServiceSpec {
    /// `Serve` or `Proxy`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// The Deployment whose pods serve.
    #[serde(default)]
    pub object_ref: ObjectReference,
    /// `http1` or `h2c`.
    #[serde(default)]
    pub protocol_type: String,
    /// How many activators; 0 is all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub num_activators: i32,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// Observed state of a ServerlessService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerlessServiceStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: status::DuckStatus,
    /// Public Service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    /// Private Service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub private_service_name: String,
}

resource!(
    /// `networking.internal.knative.dev/v1alpha1` ServerlessService.
    ServerlessService, ServerlessServiceSpec, ServerlessServiceStatus
);
