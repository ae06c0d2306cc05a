//! EventPolicy: who may send events where.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use super::SubscriptionsApiFilter;
use crate::{object::resource, status::DuckStatus};

/// Names an object that events are sent to, in the policy's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventPolicyTarget {
    /// `group/version`; the version does not count.
    #[serde(default)]
    pub api_version: String,
    /// Kind, in any case.
    #[serde(default)]
    pub kind: String,
    /// Name.
    #[serde(default)]
    pub name: String,
}

/// Chooses objects that events are sent to, in the policy's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventPolicySelector {
    /// `group/version`; the version does not count.
    #[serde(default)]
    pub api_version: String,
    /// Kind, in any case.
    #[serde(default)]
    pub kind: String,
    /// Which labels.
    #[serde(flatten)]
    pub labels: LabelSelector,
}

/// One of the objects that a policy is about: by name or by labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventPolicyTo {
    /// By name.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub ref_: Option<EventPolicyTarget>,
    /// By labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<EventPolicySelector>,
}

/// Names an object that sends events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventPolicySender {
    /// `group/version`.
    #[serde(default)]
    pub api_version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Namespace; the policy's own when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// One of those who may send: an object, or a subject of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPolicyFrom {
    /// The object.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub ref_: Option<EventPolicySender>,
    /// The subject; `*` at the end stands for any end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
}

/// Desired state of an EventPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventPolicySpec {
    /// What it is about; everything in its namespace when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<EventPolicyTo>,
    /// Who may send; nobody when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<EventPolicyFrom>,
    /// Which events: those for which all of these hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<SubscriptionsApiFilter>,
}

/// Observed state of an EventPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventPolicyStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
    /// Subjects of tokens that may send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
}

resource!(
    /// `eventing.knative.dev/v1alpha1` EventPolicy.
    EventPolicy, EventPolicySpec, EventPolicyStatus
);
