//! Broker: where events are sent, and Triggers get them from.

use serde::{Deserialize, Serialize};

use crate::{
    duck::{AddressStatus, AppliedEventPoliciesStatus, DeliverySpec, DeliveryStatus, KReference},
    object::resource,
    status::DuckStatus,
};

/// Desired state of a Broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerSpec {
    /// Where the Broker's class finds its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<KReference>,
    /// How events are delivered to Triggers that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Observed state of a Broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
    /// Where it takes events.
    #[serde(flatten)]
    pub address: AddressStatus,
    /// Where dead letters go.
    #[serde(flatten)]
    pub delivery: DeliveryStatus,
    /// Who may send.
    #[serde(flatten)]
    pub policies: AppliedEventPoliciesStatus,
}

resource!(
    /// `eventing.knative.dev/v1` Broker.
    Broker, BrokerSpec, BrokerStatus
);
