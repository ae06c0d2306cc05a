//! `flows.knative.dev`: events through several hands.

mod parallel;
mod sequence;

use k8s_openapi::api::core::v1::ObjectReference;
pub use parallel::*;
pub use sequence::*;
use serde::{Deserialize, Serialize};

use crate::status::Condition;

/// How a channel of a flow stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowChannelStatus {
    /// The channel.
    #[serde(default)]
    pub channel: ObjectReference,
    /// Its condition `Ready`.
    #[serde(default)]
    pub ready: Condition,
}

/// How a Subscription of a flow stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowSubscriptionStatus {
    /// The Subscription.
    #[serde(default)]
    pub subscription: ObjectReference,
    /// Its condition `Ready`.
    #[serde(default)]
    pub ready: Condition,
}
