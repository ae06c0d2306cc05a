//! EventType: a type of events that somebody sends; for people and tools to find.
//!
//! This is `v1beta2`, the version that is stored.

use serde::{Deserialize, Serialize};

use crate::{duck::KReference, object::resource, status::DuckStatus};

/// What is said of a type of events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeSpec {
    /// The events' `type`.
    #[serde(default, rename = "type")]
    pub type_: String,
    /// The events' `source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// URI of a schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// A schema; deprecated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema_data: String,
    /// Name of a Broker; deprecated in favour of `reference`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub broker: String,
    /// Where such events are to be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<KReference>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Observed state of an EventType.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventTypeStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
}

resource!(
    /// `eventing.knative.dev/v1beta2` EventType.
    EventType, EventTypeSpec, EventTypeStatus
);
