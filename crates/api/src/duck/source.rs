//! What sends events to a sink.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AuthStatus, Destination};
use crate::status::DuckStatus;

/// Changes to the events that are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEventOverrides {
    /// Extension attributes that are set on every event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, String>,
}

/// The part of a spec that every source has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSpec {
    /// Who gets the events.
    #[serde(default)]
    pub sink: Destination,
    /// Changes to the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ce_overrides: Option<CloudEventOverrides>,
}

/// Attributes of events that a source sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEventAttributes {
    /// `type`.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub type_: String,
    /// `source`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// The status that every source begins with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
    /// URI of the sink.
    #[serde(default, rename = "sinkUri", skip_serializing_if = "Option::is_none")]
    pub sink_uri: Option<String>,
    /// PEM bundle to trust.
    #[serde(default, rename = "sinkCACerts", skip_serializing_if = "Option::is_none")]
    pub sink_ca_certs: Option<String>,
    /// OIDC audience of the sink.
    #[serde(default, rename = "sinkAudience", skip_serializing_if = "Option::is_none")]
    pub sink_audience: Option<String>,
    /// What events it sends.
    #[serde(default, rename = "ceAttributes", skip_serializing_if = "Vec::is_empty")]
    pub ce_attributes: Vec<CloudEventAttributes>,
    /// As whom it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
}
