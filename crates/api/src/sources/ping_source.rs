//! PingSource: an event at the times of a schedule.

use serde::{Deserialize, Serialize};

use crate::{
    duck::{SourceSpec, SourceStatus},
    object::resource,
};

/// Desired state of a PingSource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PingSourceSpec {
    /// Sink and changes to events.
    #[serde(flatten)]
    pub source: SourceSpec,
    /// When, as [`crate::cron`] reads it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schedule: String,
    /// IANA time zone that the schedule is meant in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub timezone: String,
    /// Media type of the data.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content_type: String,
    /// The data.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// The data in base64; instead of `data`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data_base64: String,
}

resource!(
    /// `sources.knative.dev/v1` PingSource.
    PingSource, PingSourceSpec, SourceStatus
);
