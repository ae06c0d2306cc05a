//! Subscription: where the events of a channel and the answers to them go, and whether the channel sends them there.
//!
//! The channel's controller takes it in from here ([`super::subscribers`]); into one of a kind that controllers do not know it is
//! written ([`super::subscribers_elsewhere`]).

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    conditions::{READY, find, is_true},
    duck::{DeliveryStatus, Destination, SubscriberStatus},
    messaging::Subscription,
    status::Addressable,
};

use super::{
    Stopped,
    channelable::{self, Channelable},
    dead_letter_sink, dead_letters_to, destination, identity,
    subscribers::{channel_of, is_behind, subscriber},
    subscribers_elsewhere,
    terms::{duck_of, is_decidable},
};
use crate::{Absence, Mapper, Plan, Row, SystemConfig, World, by_controller, status::Reporting};

pub(super) const REFERENCES_RESOLVED: &str = "ReferencesResolved";
const ADDED_TO_CHANNEL: &str = "AddedToChannel";
const CHANNEL_READY: &str = "ChannelReady";

const WAKES: [(Kind, Mapper); 15] =
    destination::wakes([(Kind::ServiceAccount, by_controller), (Kind::InMemoryChannel, by_channel_behind)]);

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "subscription",
    of: Kind::Subscription,
    wakes: &WAKES,
    configs: &[SystemConfig::Eventing("config-features"), SystemConfig::Eventing("config-kreference-mapping")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

/// Subscriptions to the Channel that this channel is behind.
fn by_channel_behind(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    let key = object.key();
    if is_behind(world, &key) { world.leading_to(of, Kind::Channel, &key) } else { Vec::new() }
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(subscription) = world.subscriptions.get(key) else { return plan };
    if subscription.is_deleting() {
        subscribers_elsewhere::leave(world, &subscription, &mut plan);
        return plan;
    }
    if !is_decidable(world, subscription.as_ref()) {
        return plan;
    }
    if let Some(held) = subscribers_elsewhere::hold(world, &subscription) {
        // By itself, for a status written beside it would carry an old resourceVersion.
        plan.update(subscription.as_ref(), held);
        return plan;
    }
    let mut next = Subscription::clone(&subscription);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    plan.report(subscription.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut Subscription, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    identity::settle(world, next, plan, now, |next| &mut next.status.auth)?;
    let key = channel_of(world, next);
    let channel = channel(world, next, &key).map_err(|why| {
        let text = format!("Failed to get Spec.Channel or backing channel: {why}");
        next.conditions(now).mark_unknown(REFERENCES_RESOLVED, "ChannelReferenceFailed", &text);
        Stopped
    })?;
    resolve(world, next, &channel, &key.name).map_err(|(reason, why)| {
        next.conditions(now).mark_false(REFERENCES_RESOLVED, reason, &why);
        Stopped
    })?;
    next.conditions(now).mark_true(REFERENCES_RESOLVED);
    subscribers_elsewhere::join(world, next, &channel.spec, plan);
    report_added(next, &channel, now);
    report_ready(next, &channel, &key.name, now);
    Ok(())
}

/// The channel that holds the subscribers: the one that is named, or the one behind it.
fn channel(world: &World, subscription: &Subscription, key: &Key) -> Result<Channelable, String> {
    if let Some(kind) = duck_of(&subscription.spec.channel) {
        return subscribers_elsewhere::find(world, &kind, key);
    }
    let (kind, channel) = channelable::look_up(world, &subscription.spec.channel, key)?;
    if kind != Kind::Channel {
        return Ok(channel);
    }
    let ready = find(&channel.status.common.conditions, READY).is_some_and(is_true);
    let behind = world.channels.get(key).and_then(|channel| channel.status.channel.clone()).filter(|_| ready);
    let behind = behind.ok_or("channel is not ready.")?;
    let key = key.sibling(behind.name.clone());
    Ok(channelable::look_up(world, &behind, &key)?.1)
}

/// Finds where events, answers and dead letters go.
fn resolve(
    world: &World,
    next: &mut Subscription,
    channel: &Channelable,
    channel_name: &str,
) -> Result<(), (&'static str, String)> {
    let namespace = next.namespace().to_owned();
    let one = |to: Option<&Destination>, reason: &'static str, field: &str| match to
        .filter(|to| **to != Destination::default())
    {
        None => Ok(Addressable::default()),
        Some(to) => destination::resolve(world, to, &namespace)
            .map_err(|why| (reason, format!("Failed to resolve {field}: {why}"))),
    };
    let subscriber = one(next.spec.subscriber.as_ref(), "SubscriberResolveFailed", "spec.subscriber")?;
    let physical = &mut next.status.physical_subscription;
    (physical.subscriber_uri, physical.subscriber_ca_certs) = (subscriber.url, subscriber.ca_certs);
    physical.subscriber_audience = subscriber.audience;
    let reply = one(next.spec.reply.as_ref(), "ReplyResolveFailed", "spec.reply")?;
    (physical.reply_uri, physical.reply_ca_certs) = (reply.url, reply.ca_certs);
    physical.reply_audience = reply.audience;
    physical.delivery = DeliveryStatus::default();
    let reason = "DeadLetterSinkResolveFailed";
    if let Some(own) = dead_letter_sink(next.spec.delivery.as_ref()) {
        physical.delivery = dead_letters_to(one(Some(own), reason, "spec.delivery.deadLetterSink")?);
    } else if dead_letter_sink(channel.spec.delivery.as_ref()).is_some() {
        physical.delivery = channel.status.delivery.clone();
        if physical.delivery == DeliveryStatus::default() {
            return Err((reason, format!("channel {channel_name} didn't set status.deadLetterSinkURI")));
        }
    }
    Ok(())
}

/// Says whether the channel holds the Subscription as it is now.
fn report_added(next: &mut Subscription, channel: &Channelable, now: Timestamp) {
    let wanted = subscriber(next, &channel.spec);
    if channel.spec.subscribers.contains(&wanted) {
        next.conditions(now).mark_true(ADDED_TO_CHANNEL);
    } else {
        let text = "The channel does not have the Subscription as it is now yet.";
        next.conditions(now).mark_unknown(ADDED_TO_CHANNEL, "PhysicalChannelSyncPending", text);
    }
}

/// Says whether the channel sends events there.
fn report_ready(next: &mut Subscription, channel: &Channelable, channel_name: &str, now: Timestamp) {
    let (name, uid) = (next.name().to_owned(), next.uid().to_owned());
    let generation = next.metadata.generation.unwrap_or_default();
    let same = |status: &&SubscriberStatus| status.uid == uid && status.observed_generation == generation;
    let found = channel.status.subscribers.iter().find(same).map(|status| status.ready.as_str());
    let reason = "SubscriptionNotMarkedReadyByChannel";
    let mut conditions = next.conditions(now);
    match found {
        Some("True") => conditions.mark_true(CHANNEL_READY),
        Some("False") => conditions.mark_false(CHANNEL_READY, reason, "Subscription marked by Channel as False"),
        Some(_) => conditions.mark_unknown(CHANNEL_READY, reason, "Subscription marked by Channel as Unknown"),
        None => {
            let text = format!(
                "Failed to get subscription status: subscription {name:?} not present in channel {channel_name:?} \
                 subscriber's list"
            );
            conditions.mark_unknown(CHANNEL_READY, reason, &text)
        }
    };
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, feature, status, unhappy};
    use super::*;
    use crate::check::{check_in, planned};

    const SUBSCRIPTION: &str = r#"
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: {name: s}
spec:
  channel: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel, name: c}
  subscriber: {ref: {apiVersion: v1, kind: Service, name: app}}
  reply: {ref: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel, name: next}}
"#;
    const APP: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: app}\n";
    const NEXT: &str = "apiVersion: messaging.knative.dev/v1\nkind: InMemoryChannel\nmetadata: {name: next}\n\
                        status: {address: {name: http, url: 'http://next-kn-channel.default.svc.cluster.local'}}\n";
    const ENTRY: &str = "{name: s, uid: uid-Subscription-s, generation: 1, subscriberUri: \
                         'http://app.default.svc.cluster.local', replyUri: \
                         'http://next-kn-channel.default.svc.cluster.local'}";

    fn channel(spec: &str, status: &str) -> String {
        format!(
            "apiVersion: messaging.knative.dev/v1\nkind: InMemoryChannel\nmetadata: {{name: c}}\nspec: {{{spec}}}\n\
             status: {{{status}}}\n"
        )
    }

    fn told(fixtures: &[&str]) -> String {
        unhappy(&ROW, "default/s", &cluster(fixtures, &[]))
    }

    #[test]
    fn a_subscription_resolves_where_events_and_answers_go() {
        check_in(
            &ROW,
            "default/s",
            cluster(&[SUBSCRIPTION, APP, NEXT, &channel("", "")], &[]),
            expect![[r#"
                status Subscription default/s
                  observedGeneration 1
                  physicalSubscription {"replyUri":"http://next-kn-channel.default.svc.cluster.local","subscriberUri":"http://app.default.svc.cluster.local"}
                  AddedToChannel=Unknown PhysicalChannelSyncPending The channel does not have the Subscription as it is now yet.
                  ChannelReady=Unknown SubscriptionNotMarkedReadyByChannel Failed to get subscription status: subscription "s" not present in channel "c" subscriber's list
                  OIDCIdentityCreated=True authentication-oidc feature disabled
                  Ready=Unknown SubscriptionNotMarkedReadyByChannel Failed to get subscription status: subscription "s" not present in channel "c" subscriber's list
                  ReferencesResolved=True
            "#]],
        );
    }

    #[test]
    fn a_subscription_is_ready_when_its_channel_says_so() {
        let spec = format!("subscribers: [{ENTRY}]");
        let one = |ready: &str| {
            channel(
                &spec,
                &format!("subscribers: [{{uid: uid-Subscription-s, observedGeneration: 1, ready: {ready}}}]"),
            )
        };
        for (channel, expected) in [
            (one("'True'"), ""),
            (
                one("'False'"),
                "ChannelReady=False SubscriptionNotMarkedReadyByChannel Subscription marked by Channel as False\n",
            ),
            (
                one("Unknown"),
                "ChannelReady=Unknown SubscriptionNotMarkedReadyByChannel Subscription marked by Channel as Unknown\n",
            ),
            (
                one("'True'").replace("observedGeneration: 1", "observedGeneration: 0"),
                "ChannelReady=Unknown SubscriptionNotMarkedReadyByChannel Failed to get",
            ),
        ] {
            let told = told(&[SUBSCRIPTION, APP, NEXT, &channel]);
            assert!(told.starts_with(expected) && told.is_empty() == expected.is_empty(), "{told}");
        }
    }

    #[test]
    fn what_cannot_be_resolved_is_told_by_what_it_is() {
        let ready = channel("", "");
        let (app, next) = (
            "http://app",
            "failed to get object default/next: inmemorychannels.messaging.knative.dev \"next\" not found",
        );
        let dead = format!("{SUBSCRIPTION}  delivery: {{deadLetterSink: {{uri: dls}}}}\n");
        let with_sink = channel("delivery: {deadLetterSink: {uri: 'http://dls'}}", "");
        for (fixtures, expected) in [
            (vec![SUBSCRIPTION, APP, NEXT], "ReferencesResolved=Unknown ChannelReferenceFailed Failed to get Spec.Channel or backing channel: inmemorychannels.messaging.knative.dev \"c\" not found".to_owned()),
            (vec![SUBSCRIPTION, NEXT, &ready], "ReferencesResolved=False SubscriberResolveFailed Failed to resolve spec.subscriber: failed to get object default/app: services \"app\" not found".to_owned()),
            (vec![SUBSCRIPTION, APP, &ready], format!("ReferencesResolved=False ReplyResolveFailed Failed to resolve spec.reply: {next}")),
            (vec![&dead, APP, NEXT, &ready], "ReferencesResolved=False DeadLetterSinkResolveFailed Failed to resolve spec.delivery.deadLetterSink: URI is not absolute (both scheme and host should be non-empty): \"dls\"".to_owned()),
            (vec![SUBSCRIPTION, APP, NEXT, &with_sink], "ReferencesResolved=False DeadLetterSinkResolveFailed channel c didn't set status.deadLetterSinkURI".to_owned()),
        ] {
            let told = told(&fixtures);
            assert!(told.contains(&format!("{expected}\n")), "{app}: {told}");
        }
        let kafka = SUBSCRIPTION.replace("InMemoryChannel, name: c", "KafkaChannel, name: c");
        assert!(told(&[&kafka, APP, NEXT]).contains("nothing is known of KafkaChannel: it was not listed yet"));
    }

    #[test]
    fn dead_letters_go_where_the_subscription_says_else_where_the_channel_says() {
        let own = format!("{SUBSCRIPTION}  delivery: {{deadLetterSink: {{uri: 'http://own'}}}}\n");
        let with_sink = channel("delivery: {deadLetterSink: {uri: 'http://c'}}", "deadLetterSinkUri: 'http://c'");
        for (subscription, channel, expected) in [
            (own.as_str(), &with_sink, "\"http://own\""),
            (SUBSCRIPTION, &with_sink, "\"http://c\""),
            (SUBSCRIPTION, &channel("", ""), "null"),
        ] {
            let cluster = cluster(&[subscription, APP, NEXT, channel], &[]);
            let status = status(&planned(&ROW, "default/s", &cluster));
            assert_eq!(status["physicalSubscription"]["deadLetterSinkUri"].to_string(), expected);
        }
    }

    #[test]
    fn a_channel_is_the_one_behind_it_once_it_is_ready() {
        let subscription = SUBSCRIPTION.replace("kind: InMemoryChannel, name: c", "kind: Channel, name: c");
        let outer = |ready: &str| {
            format!(
                "apiVersion: messaging.knative.dev/v1\nkind: Channel\nmetadata: {{name: c}}\nstatus: {{channel: {{apiVersion: \
             messaging.knative.dev/v1, kind: InMemoryChannel, name: c}}, conditions: [{{type: Ready, status: '{ready}'}}]}}\n"
            )
        };
        let behind = channel(
            &format!("subscribers: [{ENTRY}]"),
            "subscribers: [{uid: uid-Subscription-s, observedGeneration: 1, ready: 'True'}]",
        );
        assert_eq!(told(&[&subscription, APP, NEXT, &behind, &outer("True")]), "");
        let told = told(&[&subscription, APP, NEXT, &behind, &outer("False")]);
        assert!(
            told.contains(
                "ChannelReferenceFailed Failed to get Spec.Channel or backing channel: channel is not ready.\n"
            ),
            "{told}"
        );
    }

    #[test]
    fn a_channel_of_another_namespace_counts_where_links_are_allowed() {
        let subscription =
            SUBSCRIPTION.replace("InMemoryChannel, name: c", "InMemoryChannel, name: c, namespace: other");
        let there = channel(
            &format!("subscribers: [{ENTRY}]"),
            "subscribers: [{uid: uid-Subscription-s, observedGeneration: 1, ready: 'True'}]",
        )
        .replace("{name: c}", "{name: c, namespace: other}");
        let mut cluster = cluster(&[&subscription, APP, NEXT, &there], &[]);
        assert!(unhappy(&ROW, "default/s", &cluster).contains("ChannelReferenceFailed"));
        feature(&mut cluster, "cross-namespace-event-links", "enabled");
        assert_eq!(unhappy(&ROW, "default/s", &cluster), "");
    }
}
