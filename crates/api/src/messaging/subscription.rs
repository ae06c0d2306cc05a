//! Subscription: who gets a channel's events, and who the answers.

use serde::{Deserialize, Serialize};

use crate::{
    duck::{AuthStatus, DeliverySpec, DeliveryStatus, Destination, KReference, Subscriber},
    object::resource,
    status::DuckStatus,
};

/// Desired state of a Subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionSpec {
    /// The channel.
    #[serde(default)]
    pub channel: KReference,
    /// Who gets its events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriber: Option<Destination>,
    /// Who gets the subscriber's answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Destination>,
    /// How events are delivered; goes before the channel's as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Where the events and answers of a Subscription go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhysicalSubscription {
    /// URI of the subscriber.
    #[serde(default, rename = "subscriberUri", skip_serializing_if = "Option::is_none")]
    pub subscriber_uri: Option<String>,
    /// PEM bundle to trust.
    #[serde(default, rename = "subscriberCACerts", skip_serializing_if = "Option::is_none")]
    pub subscriber_ca_certs: Option<String>,
    /// OIDC audience.
    #[serde(default, rename = "subscriberAudience", skip_serializing_if = "Option::is_none")]
    pub subscriber_audience: Option<String>,
    /// URI that answers go to.
    #[serde(default, rename = "replyUri", skip_serializing_if = "Option::is_none")]
    pub reply_uri: Option<String>,
    /// PEM bundle to trust.
    #[serde(default, rename = "replyCACerts", skip_serializing_if = "Option::is_none")]
    pub reply_ca_certs: Option<String>,
    /// OIDC audience.
    #[serde(default, rename = "replyAudience", skip_serializing_if = "Option::is_none")]
    pub reply_audience: Option<String>,
    /// Where dead letters go.
    #[serde(flatten)]
    pub delivery: DeliveryStatus,
}

impl PhysicalSubscription {
    /// Whether what a channel holds of the Subscription sends events and answers there, and to nobody else.
    pub fn is_where(&self, held: &Subscriber) -> bool {
        let subscriber = (&self.subscriber_uri, &self.subscriber_ca_certs, &self.subscriber_audience);
        let reply = (&self.reply_uri, &self.reply_ca_certs, &self.reply_audience);
        subscriber == (&held.subscriber_uri, &held.subscriber_ca_certs, &held.subscriber_audience)
            && reply == (&held.reply_uri, &held.reply_ca_certs, &held.reply_audience)
    }
}

/// Observed state of a Subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
    /// Where events and answers go.
    #[serde(default, rename = "physicalSubscription")]
    pub physical_subscription: PhysicalSubscription,
    /// As whom events are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
}

resource!(
    /// `messaging.knative.dev/v1` Subscription.
    Subscription, SubscriptionSpec, SubscriptionStatus
);
