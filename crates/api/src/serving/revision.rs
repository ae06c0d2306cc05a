//! Revision: one immutable snapshot of code and configuration.

use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use crate::{json, object::resource, status};

/// What Revisions are stamped from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RevisionTemplate {
    /// Name (optional), labels and annotations of the Revision.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The Revision's spec.
    #[serde(default)]
    pub spec: RevisionSpec,
}

/// Desired state of a Revision: a pod's spec and how requests reach it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionSpec {
    /// Most requests in flight in one instance; 0 is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_concurrency: Option<i64>,
    /// Most seconds for a whole request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// Most seconds until the response starts; 0 is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_start_timeout_seconds: Option<i64>,
    /// Most seconds between two writes of the response; 0 is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<i64>,
    /// The pod.
    #[serde(flatten)]
    pub pod_spec: PodSpec,
}

/// What a Revision says beside its pod.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Beside {
    container_concurrency: Option<i64>,
    timeout_seconds: Option<i64>,
    response_start_timeout_seconds: Option<i64>,
    idle_timeout_seconds: Option<i64>,
}

impl<'de> Deserialize<'de> for RevisionSpec {
    /// Reads it in two passes: `flatten` would be code for all of a pod once more, see [`json`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = json::bytes_of(&Value::deserialize(deserializer)?);
        let beside: Beside = json::read(&written).map_err(D::Error::custom)?;
        Ok(RevisionSpec {
            container_concurrency: beside.container_concurrency,
            timeout_seconds: beside.timeout_seconds,
            response_start_timeout_seconds: beside.response_start_timeout_seconds,
            idle_timeout_seconds: beside.idle_timeout_seconds,
            pod_spec: json::read(&written).map_err(D::Error::custom)?,
        })
    }
}

/// A container's image as it was resolved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Container name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `repository@digest`; empty where the registry is exempt from resolution.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_digest: String,
}

/// Observed state of a Revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: status::DuckStatus,
    /// Where its logs are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_url: String,
    /// Resolved images of the containers, in spec order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerStatus>,
    /// Resolved images of the init containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Ready instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual_replicas: Option<i32>,
    /// Wanted instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
}

resource!(
    /// `serving.knative.dev/v1` Revision.
    Revision, RevisionSpec, RevisionStatus
);
