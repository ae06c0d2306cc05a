//! Parallel: each branch gets every event, or those that its filter lets through.

use serde::{Deserialize, Serialize};

use super::{FlowChannelStatus, FlowSubscriptionStatus};
use crate::{
    duck::{AddressStatus, AppliedEventPoliciesStatus, AuthStatus, DeliverySpec, Destination},
    messaging::ChannelTemplate,
    object::resource,
    status::DuckStatus,
};

/// A branch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ParallelBranch {
    /// Answers with the events that go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Destination>,
    /// Who gets them.
    #[serde(default)]
    pub subscriber: Destination,
    /// Who gets the subscriber's answers; goes before the Parallel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Destination>,
    /// How events are delivered to the subscriber.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Desired state of a Parallel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParallelSpec {
    /// Branches.
    #[serde(default)]
    pub branches: Vec<ParallelBranch>,
    /// What the channels are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_template: Option<ChannelTemplate>,
    /// Who gets what the subscribers answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Destination>,
}

/// How a branch stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParallelBranchStatus {
    /// The Subscription of the filter.
    #[serde(default)]
    pub filter_subscription_status: FlowSubscriptionStatus,
    /// The channel behind the filter.
    #[serde(default)]
    pub filter_channel_status: FlowChannelStatus,
    /// The Subscription of the subscriber.
    #[serde(default, rename = "subscriberSubscriptionStatus")]
    pub subscription_status: FlowSubscriptionStatus,
}

/// Observed state of a Parallel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ParallelStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
    /// The channel that takes events.
    #[serde(default, rename = "ingressChannelStatus")]
    pub ingress_channel_status: FlowChannelStatus,
    /// Its branches.
    #[serde(default, rename = "branchStatuses")]
    pub branch_statuses: Vec<ParallelBranchStatus>,
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
    /// `flows.knative.dev/v1` Parallel.
    Parallel, ParallelSpec, ParallelStatus
);
