//! Trigger: which of a Broker's events go to a subscriber.

use serde::{Deserialize, Serialize};

use super::{SubscriptionsApiFilter, TriggerFilter};
use crate::{
    duck::{AuthStatus, DeliverySpec, DeliveryStatus, Destination, KReference},
    object::resource,
    status::DuckStatus,
};

/// Desired state of a Trigger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerSpec {
    /// Name of the Broker, in the same namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub broker: String,
    /// The Broker, possibly in another namespace; instead of `broker`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_ref: Option<KReference>,
    /// Which events, in the older form. Counts when `filters` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<TriggerFilter>,
    /// Which events: those for which all of these hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<SubscriptionsApiFilter>,
    /// Who gets them.
    #[serde(default)]
    pub subscriber: Destination,
    /// How they are delivered; goes before the Broker's as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Observed state of a Trigger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TriggerStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
    /// URI of the subscriber.
    #[serde(default, rename = "subscriberUri", skip_serializing_if = "Option::is_none")]
    pub subscriber_uri: Option<String>,
    /// PEM bundle to trust.
    #[serde(default, rename = "subscriberCACerts", skip_serializing_if = "Option::is_none")]
    pub subscriber_ca_certs: Option<String>,
    /// OIDC audience.
    #[serde(default, rename = "subscriberAudience", skip_serializing_if = "Option::is_none")]
    pub subscriber_audience: Option<String>,
    /// Where dead letters go.
    #[serde(flatten)]
    pub delivery: DeliveryStatus,
    /// As whom events are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
}

resource!(
    /// `eventing.knative.dev/v1` Trigger.
    Trigger, TriggerSpec, TriggerStatus
);
