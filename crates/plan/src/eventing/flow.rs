//! What Sequence and Parallel have in common: channels of one template, Subscriptions between them, and what of both a
//! status says.

use std::sync::Arc;

use knoll_api::{
    Key, Kind, Resource,
    conditions::{READY, UNKNOWN, find},
    duck::{AuthStatus, DeliverySpec, Destination},
    flows::{FlowChannelStatus, FlowSubscriptionStatus},
    k8s_openapi::api::core::v1::ObjectReference,
    messaging::{ChannelTemplate, Subscription, SubscriptionSpec},
    status::Condition,
};

use super::{
    channelable::{self, CHANNELS, Channelable},
    policies,
};
use crate::{Mapper, Plan, World, by_controller, children::child_of, status::Reporting};

pub(super) const CHANNELS_READY: &str = "ChannelsReady";
pub(super) const SUBSCRIPTIONS_READY: &str = "SubscriptionsReady";
/// Reason and message while not all channels are ready.
pub(super) const CHANNELS_NOT_READY: (&str, &str) =
    ("ChannelsNotReady", "Channels are not ready yet, or there are none");
/// Reason and message while not all Subscriptions are ready.
pub(super) const SUBSCRIPTIONS_NOT_READY: (&str, &str) =
    ("SubscriptionsNotReady", "Subscriptions are not ready yet, or there are none");

/// What wakes a flow.
pub(super) const WAKES: &[(Kind, Mapper)] = &[
    (Kind::InMemoryChannel, by_controller),
    (Kind::Channel, by_controller),
    (Kind::Subscription, by_controller),
    (Kind::EventPolicy, policies::by_policy),
    (Kind::EventPolicy, by_controller),
];

/// Makes the children of a flow.
pub(super) struct Children<'a, R> {
    /// What is there.
    pub world: &'a World,
    /// The flow.
    pub owner: &'a R,
    /// What its channels are made from.
    pub template: Option<&'a ChannelTemplate>,
    /// What is to be done.
    pub plan: &'a mut Plan,
}

/// A channel of a flow.
pub(super) struct FlowChannel {
    /// Its kind.
    pub kind: Kind,
    /// Its key.
    pub key: Key,
    /// As it stands.
    pub channel: Channelable,
}

/// A Subscription of a flow.
pub(super) struct FlowSubscription {
    /// Its key.
    pub key: Key,
    /// As it stands; nothing while it is yet to come.
    pub subscription: Option<Arc<Subscription>>,
}

impl<R: Reporting> Children<'_, R> {
    /// Sees to a channel.
    ///
    /// # Errors
    /// When it cannot be made; in words for the user.
    pub(super) fn channel(&mut self, name: String) -> Result<FlowChannel, String> {
        let kind = channelable::kind_of(self.template, &CHANNELS)?;
        let key = self.owner.key().sibling(name.clone());
        let metadata = child_of(self.owner, name, Default::default(), Default::default());
        let own = self.template.and_then(|template| template.spec.as_ref());
        let channel = channelable::settle(self.world, kind, metadata, &Default::default(), own, self.plan)?;
        Ok(FlowChannel { kind, key, channel })
    }

    /// Sees to a Subscription to a channel of the flow. What a Subscription subscribes to cannot be changed: one to
    /// another channel goes first.
    ///
    /// # Errors
    /// When it cannot be made; in words for the user.
    pub(super) fn subscription(&mut self, name: String, spec: SubscriptionSpec) -> Result<FlowSubscription, String> {
        let metadata = child_of(self.owner, name, Default::default(), Default::default());
        let wanted = Subscription { metadata, spec: self.filled(spec), ..Subscription::default() };
        let key = wanted.key();
        let existing = self.world.subscriptions.get(&key);
        match &existing {
            None => {
                self.plan.create(wanted);
                if let Some(refusal) = self.world.observed.refusals.get(&(Kind::Subscription, key.clone())) {
                    return Err(refusal.message.clone());
                }
            }
            Some(existing) if existing.is_deleting() => return Ok(FlowSubscription { key, subscription: None }),
            Some(existing) if existing.spec.channel != wanted.spec.channel => {
                self.plan.delete(existing.as_ref());
                return Ok(FlowSubscription { key, subscription: None });
            }
            Some(existing) => {
                let wanted = Subscription { spec: wanted.spec, ..Subscription::clone(existing) };
                self.plan.update(existing.as_ref(), wanted);
            }
        }
        Ok(FlowSubscription { key, subscription: existing })
    }

    /// As the API server fills it in.
    fn filled(&self, mut spec: SubscriptionSpec) -> SubscriptionSpec {
        let sink = spec.delivery.as_mut().and_then(|delivery| delivery.dead_letter_sink.as_mut());
        for to in spec.subscriber.iter_mut().chain(&mut spec.reply).chain(sink) {
            let own = to.ref_.iter_mut().filter(|reference| reference.namespace.is_empty());
            own.for_each(|reference| reference.namespace = self.owner.namespace().to_owned());
        }
        spec
    }

    /// Removes what the flow no longer has.
    pub(super) fn remove_others(&mut self, channels: &[&FlowChannel], subscriptions: &[&FlowSubscription]) {
        let (world, uid) = (self.world, self.owner.uid());
        let is_kept = |kind: Kind, key: &Key| channels.iter().any(|kept| kept.kind == kind && kept.key == *key);
        for channel in world.in_memory_channels.owned_by(uid) {
            if !channel.is_deleting() && !is_kept(Kind::InMemoryChannel, &channel.key()) {
                self.plan.delete(channel.as_ref());
            }
        }
        for channel in world.channels.owned_by(uid) {
            if !channel.is_deleting() && !is_kept(Kind::Channel, &channel.key()) {
                self.plan.delete(channel.as_ref());
            }
        }
        for subscription in world.subscriptions.owned_by(uid) {
            let is_kept = subscriptions.iter().any(|kept| kept.key == subscription.key());
            if !subscription.is_deleting() && !is_kept {
                self.plan.delete(subscription.as_ref());
            }
        }
    }
}

impl FlowChannel {
    /// The channel as a Destination.
    pub(super) fn destination(&self) -> Destination {
        Destination { ref_: Some(channelable::reference(self.kind, &self.key)), ..Destination::default() }
    }

    /// A Subscription to the channel.
    pub(super) fn subscribed(
        &self,
        subscriber: Destination,
        reply: Option<Destination>,
        delivery: Option<DeliverySpec>,
    ) -> SubscriptionSpec {
        let mut channel = channelable::reference(self.kind, &self.key);
        channel.namespace = String::new();
        SubscriptionSpec { channel, subscriber: Some(subscriber), reply, delivery }
    }

    /// The channel by its condition `Ready`.
    pub(super) fn by_condition(&self) -> FlowChannelStatus {
        let ready = find(&self.channel.status.common.conditions, READY).cloned();
        FlowChannelStatus { channel: self.reference(), ready: ready.unwrap_or_else(|| no_ready("Channel")) }
    }

    /// The channel by whether it has an address.
    pub(super) fn by_address(&self) -> FlowChannelStatus {
        let has_address = self.channel.status.address.address.is_some();
        let ready = Condition { type_: READY.to_owned(), status: "True".to_owned(), ..Condition::default() };
        let not_ready = Condition {
            status: "False".to_owned(),
            reason: "NotAddressable".to_owned(),
            message: "Channel is not addressable".to_owned(),
            ..ready.clone()
        };
        FlowChannelStatus { channel: self.reference(), ready: if has_address { ready } else { not_ready } }
    }

    fn reference(&self) -> ObjectReference {
        channelable::object_reference(self.kind, &self.key)
    }
}

impl FlowSubscription {
    /// The Subscription by its condition `Ready`; `missing` while it says nothing.
    pub(super) fn by_condition(&self, missing: fn() -> Condition) -> FlowSubscriptionStatus {
        let ready = self.subscription.as_ref().and_then(|subscription| subscription.condition(READY)).cloned();
        let subscription = channelable::object_reference(Kind::Subscription, &self.key);
        FlowSubscriptionStatus { subscription, ready: ready.unwrap_or_else(missing) }
    }

    /// As whom it sends.
    fn account(&self) -> Option<String> {
        self.subscription.as_ref()?.status.auth.as_ref()?.service_account_name.clone()
    }
}

/// As whom the Subscriptions of a flow send.
pub(super) fn auth<'a>(subscriptions: impl Iterator<Item = &'a FlowSubscription>) -> Option<AuthStatus> {
    let service_account_names: Vec<String> = subscriptions.filter_map(FlowSubscription::account).collect();
    (!service_account_names.is_empty()).then(|| AuthStatus { service_account_names, ..AuthStatus::default() })
}

/// What a Sequence says of a Subscription that says nothing of itself.
pub(super) fn subscription_without_ready() -> Condition {
    no_ready("Subscription")
}

fn no_ready(what: &str) -> Condition {
    Condition {
        type_: READY.to_owned(),
        status: UNKNOWN.to_owned(),
        reason: "NoReady".to_owned(),
        message: format!("{what} does not have Ready condition"),
        ..Condition::default()
    }
}
