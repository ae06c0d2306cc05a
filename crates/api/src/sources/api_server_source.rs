//! ApiServerSource: an event for each change of objects in the API.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use crate::{
    duck::{SourceSpec, SourceStatus},
    eventing::SubscriptionsApiFilter,
    object::resource,
};

/// Mode in which events name the object that changed.
pub const REFERENCE_MODE: &str = "Reference";
/// Mode in which events hold the object that changed.
pub const RESOURCE_MODE: &str = "Resource";

/// Objects of a kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchedResource {
    /// `group/version`.
    #[serde(default)]
    pub api_version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// Which labels; all objects without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// A kind of owners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceOwner {
    /// `group/version`.
    #[serde(default)]
    pub api_version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
}

/// Desired state of an ApiServerSource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiServerSourceSpec {
    /// Sink and changes to events.
    #[serde(flatten)]
    pub source: SourceSpec,
    /// What is watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<WatchedResource>,
    /// Only objects that an object of this kind controls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<ResourceOwner>,
    /// [`REFERENCE_MODE`] or [`RESOURCE_MODE`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// As whom objects are watched.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// In which namespaces; its own without, all when it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Which events: those for which all of these hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<SubscriptionsApiFilter>,
}

/// Observed state of an ApiServerSource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ApiServerSourceStatus {
    /// What every source reports.
    #[serde(flatten)]
    pub source: SourceStatus,
    /// The namespaces that are watched.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

resource!(
    /// `sources.knative.dev/v1` ApiServerSource.
    ApiServerSource, ApiServerSourceSpec, ApiServerSourceStatus
);
