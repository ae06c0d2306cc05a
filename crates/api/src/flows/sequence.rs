//! Sequence: each step gets what the one before it answered.

use serde::{Deserialize, Serialize};

use super::{FlowChannelStatus, FlowSubscriptionStatus};
use crate::{
    duck::{AddressStatus, AppliedEventPoliciesStatus, AuthStatus, DeliverySpec, Destination},
    messaging::ChannelTemplate,
    object::resource,
    status::DuckStatus,
};

/// A step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SequenceStep {
    /// Who gets the events.
    #[serde(flatten)]
    pub destination: Destination,
    /// How they are delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Desired state of a Sequence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SequenceSpec {
    /// Steps, in order.
    #[serde(default)]
    pub steps: Vec<SequenceStep>,
    /// What the channels between them are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_template: Option<ChannelTemplate>,
    /// Who gets what the last step answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Destination>,
}

/// Observed state of a Sequence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SequenceStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
    /// Its Subscriptions, a step each.
    #[serde(default, rename = "subscriptionStatuses", skip_serializing_if = "Vec::is_empty")]
    pub subscription_statuses: Vec<FlowSubscriptionStatus>,
    /// Its channels, a step each.
    #[serde(default, rename = "channelStatuses", skip_serializing_if = "Vec::is_empty")]
    pub channel_statuses: Vec<FlowChannelStatus>,
    /// Where it takes events.
    #[serde(flatten)]
    pub address: AddressStatus,
    /// As whom events are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
    /// Who may send.
    #[serde(flatten)]
    pub policies: AppliedEventPoliciesStatus,
}

resource!(
    /// `flows.knative.dev/v1` Sequence.
    Sequence, SequenceSpec, SequenceStatus
);
