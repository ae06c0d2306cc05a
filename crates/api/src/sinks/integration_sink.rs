//! IntegrationSink: events to systems outside.

use serde::{Deserialize, Serialize};

use crate::{
    duck::{AddressStatus, AppliedEventPoliciesStatus},
    object::resource,
    sources::{AwsS3, AwsSns, AwsSqs, ConnectorAuth},
    status::DuckStatus,
};

/// Events go into a log. What is absent has the value named here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogSink {
    /// Category in the log; `log-sink`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logger_name: Option<String>,
    /// Level; `INFO`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Whether what is secret is masked; `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_mask: Option<bool>,
    /// A marker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// Whether each part has a line of its own; `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiline: Option<bool>,
    /// Whether all properties are shown; `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_all_properties: Option<bool>,
    /// Whether the body is shown; `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_body: Option<bool>,
    /// Whether the type of the body is shown; `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_body_type: Option<bool>,
    /// Whether the exchange pattern is shown; `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_exchange_pattern: Option<bool>,
    /// Whether headers are shown; `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_headers: Option<bool>,
    /// Whether the sender's properties are shown; `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_properties: Option<bool>,
    /// Whether bodies that are streams are shown; `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_streams: Option<bool>,
    /// Whether bodies that are cached streams are shown; `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_cached_streams: Option<bool>,
}

/// Events go to AWS: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsSink {
    /// A bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<AwsS3>,
    /// A queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqs: Option<AwsSqs>,
    /// A topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sns: Option<AwsSns>,
    /// As whom to sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ConnectorAuth>,
}

/// Desired state of an IntegrationSink: one of the systems.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntegrationSinkSpec {
    /// AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsSink>,
    /// A log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogSink>,
}

/// Observed state of an IntegrationSink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IntegrationSinkStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
    /// Where it takes events.
    #[serde(flatten)]
    pub address: AddressStatus,
    /// Who may send.
    #[serde(flatten)]
    pub policies: AppliedEventPoliciesStatus,
}

resource!(
    /// `sinks.knative.dev/v1alpha1` IntegrationSink.
    IntegrationSink, IntegrationSinkSpec, IntegrationSinkStatus
);
