//! Channel → the channel behind it, of the kind that its template names. Reports what that one reports.

use knoll_api::{Key, Kind, Resource, Timestamp, conditions::READY, duck::DeliveryStatus, messaging::Channel, names};

use super::{
    ADDRESSABLE, DEAD_LETTER_SINK_RESOLVED, Stopped,
    backing_policies::BackingPolicies,
    channelable::{self, Channelable},
    dead_letter_sink, dead_letters_not_configured, follow, policies,
};
use crate::{
    Absence, Plan, Row, SystemConfig, World, by_controller, by_same_key,
    children::{child_of, map},
    status::Reporting,
};

const BACKING_CHANNEL_READY: &str = "BackingChannelReady";
/// Kinds that may be behind a Channel: another Channel of its name would be itself.
const BEHIND: [Kind; 1] = [Kind::InMemoryChannel];

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "channel",
    of: Kind::Channel,
    wakes: &[
        (Kind::InMemoryChannel, by_same_key),
        (Kind::EventPolicy, policies::by_policy),
        (Kind::EventPolicy, by_controller),
    ],
    configs: &[SystemConfig::Eventing("config-features")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(channel) = world.channels.get(key).filter(|channel| !channel.is_deleting()) else { return plan };
    let mut next = Channel::clone(&channel);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    plan.report(channel.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut Channel, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    let (kind, behind) = settle_behind(world, next, plan).map_err(|why| {
        next.conditions(now).mark_false(BACKING_CHANNEL_READY, "ChannelFailure", &why);
        Stopped
    })?;
    next.status.channel = Some(channelable::reference(kind, &next.key()));
    let ready = knoll_api::conditions::find(&behind.status.common.conditions, READY);
    let unknown = ("BackingChannelNotConfigured", "BackingChannel has not yet been reconciled.");
    follow(next, BACKING_CHANNEL_READY, ready, unknown, now);
    follow_address(next, &behind, now);
    next.status.channelable.subscribers = behind.status.subscribers;
    follow_dead_letters(next, behind.status.delivery, now);
    policies::report(world, next, now, |next| &mut next.status.channelable.policies);
    let of_channel = [
        ("messaging.knative.dev/channel-group", kind.group()),
        ("messaging.knative.dev/channel-version", kind.version()),
        ("messaging.knative.dev/channel-kind", kind.kind()),
        ("messaging.knative.dev/channel-name", next.name()),
    ];
    let mut backing = BackingPolicies::of(world, next, map(of_channel));
    backing.admit_those_of_owner((kind, &next.key()), |policy| names::child(&format!("{policy}-"), next.name()));
    backing.settle(plan);
    Ok(())
}

fn settle_behind(world: &World, channel: &Channel, plan: &mut Plan) -> Result<(Kind, Channelable), String> {
    let template = channel.spec.channel_template.as_ref();
    let kind = channelable::kind_of(template, &BEHIND)?;
    let metadata = child_of(channel, channel.name(), Default::default(), Default::default());
    let own = template.and_then(|template| template.spec.as_ref());
    Ok((kind, channelable::settle(world, kind, metadata, &channel.spec.channelable, own, plan)?))
}

fn follow_address(next: &mut Channel, behind: &Channelable, now: Timestamp) {
    let address = behind.status.address.address.clone();
    let has_url = address.as_ref().is_some_and(|address| address.url.as_ref().is_some_and(|url| !url.is_empty()));
    next.status.channelable.address.address = address;
    if has_url {
        next.conditions(now).mark_true(ADDRESSABLE);
    } else {
        next.conditions(now).mark_false(ADDRESSABLE, "EmptyHostname", "hostname is the empty string");
    }
}

fn follow_dead_letters(next: &mut Channel, behind: DeliveryStatus, now: Timestamp) {
    if dead_letter_sink(next.spec.channelable.delivery.as_ref()).is_none() {
        next.status.channelable.delivery = DeliveryStatus::default();
        dead_letters_not_configured(next, now);
        return;
    }
    next.status.channelable.delivery = behind;
    if next.status.channelable.delivery == DeliveryStatus::default() {
        let reason = format!("Backing Channel {} didn't set status.deadLetterSinkURI", next.name());
        next.conditions(now).mark_false(DEAD_LETTER_SINK_RESOLVED, &reason, "");
    } else {
        next.conditions(now).mark_true(DEAD_LETTER_SINK_RESOLVED);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, feature, unhappy};
    use super::*;
    use crate::check::{NOW, check_in, planned};

    const CHANNEL: &str = r#"
apiVersion: messaging.knative.dev/v1
kind: Channel
metadata: {name: c}
spec:
  channelTemplate: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel, spec: {delivery: {retry: 7}}}
  delivery: {retry: 1, deadLetterSink: {uri: 'http://dls'}}
"#;

    fn behind(status: &str) -> String {
        format!(
            "apiVersion: messaging.knative.dev/v1\nkind: InMemoryChannel\nmetadata: {{name: c, owner: Channel/c}}\n\
             status: {{{status}}}\n"
        )
    }

    #[test]
    fn a_new_channel_gets_one_behind_it_by_its_template() {
        check_in(
            &ROW,
            "default/c",
            cluster(&[CHANNEL], &[]),
            expect![[r#"
                create InMemoryChannel default/c
                  delivery {"retry":7}
                status Channel default/c
                  channel {"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"c","namespace":"default"}
                  observedGeneration 1
                  Addressable=False EmptyHostname hostname is the empty string
                  BackingChannelReady=Unknown BackingChannelNotConfigured BackingChannel has not yet been reconciled.
                  DeadLetterSinkResolved=False Backing Channel c didn't set status.deadLetterSinkURI
                  EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
                  Ready=False Backing Channel c didn't set status.deadLetterSinkURI
            "#]],
        );
    }

    /// Whoever may not send to the Channel may not send past it.
    #[test]
    fn who_may_send_to_a_channel_may_send_to_the_one_behind_it() {
        let policy = "apiVersion: eventing.knative.dev/v1alpha1\nkind: EventPolicy\nmetadata: {name: p}\nspec: {to: [{ref: \
                      {apiVersion: messaging.knative.dev/v1, kind: Channel, name: c}}], from: [{sub: 'system:serviceaccount:\
                      a:b'}], filters: [{prefix: {type: valid}}]}\n";
        let behind = behind("address: {url: 'http://c'}");
        let mut cluster = cluster(&[CHANNEL, &behind, policy], &[]);
        feature(&mut cluster, "authentication-oidc", "enabled");
        let key = Key::new("default", "p-c");
        planned(&ROW, "default/c", &cluster).wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        let made = cluster.world.event_policies.get(&key).expect("a policy");
        let of = cluster.world.event_policies.get(&Key::new("default", "p")).expect("it is there");
        assert_eq!((&made.spec.from, &made.spec.filters), (&of.spec.from, &of.spec.filters));
        let to = made.spec.to[0].ref_.as_ref().expect("by name");
        assert_eq!((to.kind.as_str(), to.name.as_str()), ("InMemoryChannel", "c"));
        // It goes with what it is made of.
        cluster.delete(Kind::EventPolicy, &Key::new("default", "p"));
        planned(&ROW, "default/c", &cluster).wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        assert!(cluster.world.event_policies.get(&key).is_none());
    }

    #[test]
    fn a_channel_says_what_the_one_behind_it_says() {
        let ready = behind(
            "conditions: [{type: Ready, status: 'True'}], address: {name: http, url: 'http://c'}, deadLetterSinkUri: \
             'http://dls', subscribers: [{uid: u, observedGeneration: 2, ready: 'True'}]",
        );
        check_in(
            &ROW,
            "default/c",
            cluster(&[CHANNEL, &ready], &[]),
            expect![[r#"
                status Channel default/c
                  address {"name":"http","url":"http://c"}
                  channel {"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"c","namespace":"default"}
                  deadLetterSinkUri "http://dls"
                  observedGeneration 1
                  subscribers [{"observedGeneration":2,"ready":"True","uid":"u"}]
                  Addressable=True
                  BackingChannelReady=True
                  DeadLetterSinkResolved=True
                  EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
                  Ready=True
            "#]],
        );
        for (condition, expected) in [
            ("status: 'False', reason: R, message: m", "BackingChannelReady=False R m\n"),
            ("status: Unknown, reason: R, message: m", "BackingChannelReady=Unknown R m\n"),
        ] {
            let one = behind(&format!("conditions: [{{type: Ready, {condition}}}], address: {{url: 'http://c'}}"));
            let told = unhappy(&ROW, "default/c", &cluster(&[CHANNEL, &one], &[]));
            assert!(told.starts_with(expected), "{told}");
        }
    }

    #[test]
    fn a_kind_of_channel_that_is_not_served_is_told() {
        let kafka = CHANNEL.replace("kind: InMemoryChannel", "kind: KafkaChannel");
        let told = unhappy(&ROW, "default/c", &cluster(&[&kafka], &[]));
        let text = "ChannelFailure no channel of kind KafkaChannel (messaging.knative.dev/v1) is served here; name InMemoryChannel";
        assert!(told.contains(&format!("BackingChannelReady=False {text}\n")), "{told}");
        let odd = CHANNEL.replace("retry: 7", "retry: often");
        let told = unhappy(&ROW, "default/c", &cluster(&[&odd], &[]));
        assert!(told.contains("failed to create channel default/c: channelTemplate.spec: invalid type"), "{told}");
    }
}
