//! EventTransform: events made of events.

use k8s_openapi::api::apps::v1::DeploymentStatus;
use serde::{Deserialize, Serialize};

use crate::{
    duck::{AddressStatus, AppliedEventPoliciesStatus, Destination, SourceStatus},
    object::resource,
};

/// A transformation in JSONata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jsonata {
    /// The expression.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub expression: String,
}

/// What becomes of the sink's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTransformReply {
    /// It is transformed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jsonata: Option<Jsonata>,
    /// Its body is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard: Option<bool>,
}

/// Desired state of an EventTransform.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventTransformSpec {
    /// Who gets the transformed events; they are the answer without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<Destination>,
    /// What becomes of the sink's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<EventTransformReply>,
    /// The transformation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jsonata: Option<Jsonata>,
}

/// How a transformation in JSONata stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JsonataStatus {
    /// What carries it out.
    #[serde(default)]
    pub deployment: DeploymentStatus,
}

/// Observed state of an EventTransform.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventTransformStatus {
    /// Conditions and generation, and its sink.
    #[serde(flatten)]
    pub source: SourceStatus,
    /// Where it takes events.
    #[serde(flatten)]
    pub address: AddressStatus,
    /// Who may send.
    #[serde(flatten)]
    pub policies: AppliedEventPoliciesStatus,
    /// How the transformation stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jsonata: Option<JsonataStatus>,
}

resource!(
    /// `eventing.knative.dev/v1alpha1` EventTransform.
    EventTransform, EventTransformSpec, EventTransformStatus
);
