//! IntegrationSource: events from systems outside.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};

use super::{AwsDdbStreams, AwsS3, AwsSqs, ConnectorAuth};
use crate::{
    duck::{SourceSpec, SourceStatus},
    object::resource,
};

/// Events at fixed intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timer {
    /// Milliseconds between two events; 1000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<i64>,
    /// The data.
    #[serde(default)]
    pub message: String,
    /// Media type of the data; `text/plain` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// How many events; without end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_count: Option<i64>,
}

/// Events from AWS: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsSource {
    /// Objects of a bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<AwsS3>,
    /// Messages of a queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqs: Option<AwsSqs>,
    /// Changes of a table.
    #[serde(default, rename = "ddbStreams", skip_serializing_if = "Option::is_none")]
    pub ddb_streams: Option<AwsDdbStreams>,
    /// As whom to sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ConnectorAuth>,
}

/// Desired state of an IntegrationSource: one of the systems.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IntegrationSourceSpec {
    /// Sink and changes to events.
    #[serde(flatten)]
    pub source: SourceSpec,
    /// AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsSource>,
    /// A timer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer: Option<Timer>,
    /// What its pod is like, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PodTemplateSpec>,
}

resource!(
    /// `sources.knative.dev/v1alpha1` IntegrationSource.
    IntegrationSource, IntegrationSourceSpec, SourceStatus
);
