//! From Subscriptions to the subscribers of a channel.
//!
//! Upstream has each Subscription write itself into its channel. Here the channel's controller gathers them: one writer an
//! object, so that a thousand Subscriptions made at once are a few writes and no conflict.

use std::{collections::BTreeMap, sync::Arc};

use knoll_api::{
    Key, Kind, Object, Resource,
    conditions::is_true,
    duck::{ChannelableSpec, DeliverySpec, DeliveryStatus, Destination, Subscriber},
    messaging::{InMemoryChannel, Subscription},
};

use super::{
    subscription::REFERENCES_RESOLVED,
    terms::{key_of, kind_of},
};
use crate::{World, status::Reporting, terms::leads_to};

/// Key of the channel that a Subscription names. One of kind Channel has the channel behind it under the same name.
pub(super) fn channel_of(world: &World, subscription: &Subscription) -> Key {
    let channel = &subscription.spec.channel;
    if world.eventing.features.cross_namespace_event_links.is_enabled() {
        key_of(channel, subscription.namespace())
    } else {
        Key::new(subscription.namespace(), channel.name.clone())
    }
}

/// The channel that a Subscription subscribes to.
pub(super) fn by_subscription(world: &World, object: &Object, _: Kind) -> Vec<Key> {
    match object {
        Object::Subscription(subscription) => vec![channel_of(world, subscription)],
        _ => Vec::new(),
    }
}

/// Whether a Channel is there whose events are in the channel of the same key.
pub(super) fn is_behind(world: &World, channel: &Key) -> bool {
    let behind = world.channels.get(channel).and_then(|channel| channel.status.channel.clone());
    behind.is_some_and(|behind| kind_of(&behind) == Some(Kind::InMemoryChannel) && behind.name == channel.name)
}

/// Every Subscription to a channel, to it or to the Channel that it is behind.
pub fn subscriptions(world: &World, channel: &Key) -> Vec<Arc<Subscription>> {
    let mut kinds = vec![Kind::InMemoryChannel];
    kinds.extend(is_behind(world, channel).then_some(Kind::Channel));
    let found = kinds.iter().flat_map(|kind| world.subscriptions.find(leads_to(*kind, channel)));
    // One may lead here by its subscriber, too.
    let mut found: Vec<_> = found
        .filter(|subscription| kind_of(&subscription.spec.channel).is_some_and(|kind| kinds.contains(&kind)))
        .filter(|subscription| channel_of(world, subscription) == *channel)
        .collect();
    found.sort_by_key(|one| (one.metadata.creation_timestamp.clone(), one.key()));
    found.dedup_by_key(|one| one.key());
    found
}

/// Who is subscribed to a channel. One whose Subscription cannot be resolved any more stays as it was, and so does one
/// that no Subscription has put there, or whose Subscription may be there and cannot be read.
pub(super) fn subscribers(world: &World, channel: &InMemoryChannel) -> Vec<Subscriber> {
    let live: BTreeMap<String, Arc<Subscription>> = subscriptions(world, &channel.key())
        .into_iter()
        .filter(|subscription| !subscription.is_deleting())
        .map(|subscription| (subscription.uid().to_owned(), subscription))
        .collect();
    let is_gone = |there: &Subscriber| {
        let may_be_there = |name: &String| world.has_unreadable_named(Kind::Subscription, name);
        let may_be_through = world.is_unreadable(Kind::Channel, &channel.key());
        there.name.as_ref().is_some_and(|name| !may_be_through && !may_be_there(name))
    };
    let mut next: Vec<Subscriber> = Vec::new();
    for there in &channel.spec.subscribers {
        match live.get(&there.uid) {
            Some(subscription) if is_resolved(subscription) => next.push(subscriber(subscription, &channel.spec)),
            None if is_gone(there) => {}
            _ => next.push(there.clone()),
        }
    }
    let is_new = |uid: &str| channel.spec.subscribers.iter().all(|there| there.uid != uid);
    let mut new: Vec<_> = live.values().filter(|one| is_new(one.uid()) && is_resolved(one)).collect();
    new.sort_by_key(|one| (one.metadata.creation_timestamp.clone(), one.key()));
    next.extend(new.into_iter().map(|subscription| subscriber(subscription, &channel.spec)));
    next
}

/// Whether the status of a Subscription says where the events of its newest generation go.
fn is_resolved(subscription: &Subscription) -> bool {
    subscription.is_observed() && subscription.condition(REFERENCES_RESOLVED).is_some_and(is_true)
}

/// A Subscription as its channel holds it.
pub(super) fn subscriber(subscription: &Subscription, channel: &ChannelableSpec) -> Subscriber {
    let to = subscription.status.physical_subscription.clone();
    Subscriber {
        name: Some(subscription.name().to_owned()),
        uid: subscription.uid().to_owned(),
        generation: subscription.metadata.generation.unwrap_or_default(),
        subscriber_uri: to.subscriber_uri,
        subscriber_ca_certs: to.subscriber_ca_certs,
        subscriber_audience: to.subscriber_audience,
        reply_uri: to.reply_uri,
        reply_ca_certs: to.reply_ca_certs,
        reply_audience: to.reply_audience,
        delivery: delivery(subscription, channel),
        auth: subscription.status.auth.clone(),
    }
}

/// How events are delivered: as the Subscription says, else as the channel says. Where dead letters go has been found
/// already. The format is not handed on, as upstream does not.
fn delivery(subscription: &Subscription, channel: &ChannelableSpec) -> Option<DeliverySpec> {
    let said = subscription.spec.delivery.as_ref().or(channel.delivery.as_ref());
    let said = said.map(|said| DeliverySpec { dead_letter_sink: None, format: None, ..said.clone() });
    let sink = &subscription.status.physical_subscription.delivery;
    let dead_letter_sink = (*sink != DeliveryStatus::default()).then(|| Destination {
        ref_: None,
        uri: sink.dead_letter_sink_uri.clone(),
        ca_certs: sink.dead_letter_sink_ca_certs.clone(),
        audience: sink.dead_letter_sink_audience.clone(),
    });
    let delivery = DeliverySpec { dead_letter_sink, ..said.unwrap_or_default() };
    Some(delivery).filter(|delivery| *delivery != DeliverySpec::default())
}
