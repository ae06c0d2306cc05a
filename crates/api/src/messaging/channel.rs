//! Channel: a channel of whatever kind is the default.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    duck::{ChannelableSpec, ChannelableStatus, KReference},
    object::resource,
};

/// What channels are made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelTemplate {
    /// `group/version`.
    #[serde(default)]
    pub api_version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// The spec, whatever the kind makes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
}

/// Desired state of a Channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelSpec {
    /// What the channel behind it is made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_template: Option<ChannelTemplate>,
    /// Subscribers, of which there are none here, and delivery.
    #[serde(flatten)]
    pub channelable: ChannelableSpec,
}

/// Observed state of a Channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// As the channel behind it reports.
    #[serde(flatten)]
    pub channelable: ChannelableStatus,
    /// The channel behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<KReference>,
}

resource!(
    /// `messaging.knative.dev/v1` Channel.
    Channel, ChannelSpec, ChannelStatus
);
