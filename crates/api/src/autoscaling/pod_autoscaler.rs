//! PodAutoscaler: how a revision's Deployment is to be scaled.

use serde::{Deserialize, Serialize};

use crate::{object::resource, status};

/// Names the object whose `scale` subresource is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTargetRef {
    /// `group/version`.
    #[serde(default)]
    pub api_version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// Name.
    #[serde(default)]
    pub name: String,
}

/// Desired state of a PodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodAutoscalerSpec {
    /// Most requests in flight in one instance; 0 is unlimited.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub container_concurrency: i64,
    /// What is scaled.
    #[serde(default)]
    pub scale_target_ref: ScaleTargetRef,
    /// `Reachable`, `Unreachable`, or empty while unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reachability: String,
    /// `http1` or `h2c`.
    #[serde(default)]
    pub protocol_type: String,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// Observed state of a PodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodAutoscalerStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: status::DuckStatus,
    /// The revision's public Service.
    #[serde(default)]
    pub service_name: String,
    /// The revision's private Service.
    #[serde(default)]
    pub metrics_service_name: String,
    /// Wanted instances; -1 while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_scale: Option<i32>,
    /// Ready instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual_scale: Option<i32>,
}

resource!(
    /// `autoscaling.internal.knative.dev/v1alpha1` PodAutoscaler.
    PodAutoscaler, PodAutoscalerSpec, PodAutoscalerStatus
);
