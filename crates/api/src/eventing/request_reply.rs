//! RequestReply: a request over HTTP that is answered by an event.

use serde::{Deserialize, Serialize};

use crate::{
    duck::{AddressStatus, AppliedEventPoliciesStatus, DeliverySpec, KReference},
    object::resource,
    status::DuckStatus,
};

/// Desired state of a RequestReply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestReplySpec {
    /// The Broker that requests are sent to.
    #[serde(default)]
    pub broker_ref: KReference,
    /// Attribute that marks requests.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub correlation_attribute: String,
    /// Attribute by which answers name their request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reply_attribute: String,
    /// How long an answer is waited for, ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// How requests are delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Observed state of a RequestReply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestReplyStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
    /// Where it takes requests.
    #[serde(flatten)]
    pub address: AddressStatus,
    /// Who may send.
    #[serde(flatten)]
    pub policies: AppliedEventPoliciesStatus,
    /// Wanted instances.
    #[serde(default, rename = "desiredReplicas", skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// Ready instances.
    #[serde(default, rename = "readyReplicas", skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
}

resource!(
    /// `eventing.knative.dev/v1alpha1` RequestReply.
    RequestReply, RequestReplySpec, RequestReplyStatus
);
