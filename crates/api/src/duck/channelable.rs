//! What can be subscribed to, and channels.

use serde::{Deserialize, Serialize};

use super::{AddressStatus, AppliedEventPoliciesStatus, AuthStatus, DeliverySpec, DeliveryStatus};
use crate::status::DuckStatus;

/// One subscriber of a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscriber {
    /// Name of the Subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// uid of the Subscription; tells subscribers apart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Generation of the Subscription.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: i64,
    /// Who gets the events.
    #[serde(default, rename = "subscriberUri", skip_serializing_if = "Option::is_none")]
    pub subscriber_uri: Option<String>,
    /// PEM bundle to trust.
    #[serde(default, rename = "subscriberCACerts", skip_serializing_if = "Option::is_none")]
    pub subscriber_ca_certs: Option<String>,
    /// OIDC audience.
    #[serde(default, rename = "subscriberAudience", skip_serializing_if = "Option::is_none")]
    pub subscriber_audience: Option<String>,
    /// Who gets the subscriber's answers.
    #[serde(default, rename = "replyUri", skip_serializing_if = "Option::is_none")]
    pub reply_uri: Option<String>,
    /// PEM bundle to trust.
    #[serde(default, rename = "replyCACerts", skip_serializing_if = "Option::is_none")]
    pub reply_ca_certs: Option<String>,
    /// OIDC audience.
    #[serde(default, rename = "replyAudience", skip_serializing_if = "Option::is_none")]
    pub reply_audience: Option<String>,
    /// How it is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
    /// As whom the channel sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
}

/// Characters of the longest uid of a subscriber.
const LONGEST_UID: usize = 63;
/// By which the log knows what a channel itself has taken.
const RESERVED_UID: &str = "matched";

impl Subscriber {
    /// Whether its uid is one that a Subscription could have, or none: at most 63 letters, digits and hyphens, and no name of
    /// the log's own. It is part of names there, and of lines that are sent.
    pub fn has_fitting_uid(&self) -> bool {
        let fits = |sign: char| sign.is_ascii_alphanumeric() || sign == '-';
        self.uid.len() <= LONGEST_UID && self.uid.chars().all(fits) && self.uid != RESERVED_UID
    }
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// How one subscriber stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriberStatus {
    /// uid of the Subscription.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The generation this speaks of.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub observed_generation: i64,
    /// `True`, `False` or `Unknown`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ready: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// As whom the channel sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
}

/// The part of a spec that every channel has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChannelableSpec {
    /// Who is subscribed; written by the Subscriptions' controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribers: Vec<Subscriber>,
    /// How events are delivered to subscribers that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// The status that every channel has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChannelableStatus {
    /// Conditions and generation.
    #[serde(flatten)]
    pub common: DuckStatus,
    /// Where it takes events.
    #[serde(flatten)]
    pub address: AddressStatus,
    /// How subscribers stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribers: Vec<SubscriberStatus>,
    /// Where dead letters go.
    #[serde(flatten)]
    pub delivery: DeliveryStatus,
    /// Who may send.
    #[serde(flatten)]
    pub policies: AppliedEventPoliciesStatus,
}
