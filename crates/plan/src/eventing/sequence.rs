//! Sequence → a channel and a Subscription a step: what a step answers is in the next one's channel.

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    conditions::is_true,
    duck::AddressStatus,
    flows::{FlowChannelStatus, Sequence},
    names,
    status::Addressable,
};

use super::{
    ADDRESSABLE, Stopped,
    backing_policies::BackingPolicies,
    flow::{self, CHANNELS_READY, Children, FlowChannel, FlowSubscription, SUBSCRIPTIONS_READY},
    policies,
};
use crate::{Absence, Plan, Row, SystemConfig, World, children::map, status::Reporting};

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "sequence",
    of: Kind::Sequence,
    wakes: flow::WAKES,
    configs: &[SystemConfig::Eventing("config-features")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(sequence) = world.sequences.get(key).filter(|sequence| !sequence.is_deleting()) else { return plan };
    let mut next = Sequence::clone(&sequence);
    next.conditions(now).initialize();
    let template = sequence.spec.channel_template.as_ref();
    let mut children = Children { world, owner: sequence.as_ref(), template, plan: &mut plan };
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(&mut children, &mut next, now).unwrap_or(());
    plan.report(sequence.as_ref(), next);
    plan
}

/// Name of the channel, and of the Subscription, of a step.
fn name(sequence: &Sequence, step: usize) -> String {
    format!("{}-kn-sequence-{step}", sequence.name())
}

fn reconcile(children: &mut Children<'_, Sequence>, next: &mut Sequence, now: Timestamp) -> Result<(), Stopped> {
    let channels = channels(children).map_err(|why| {
        next.conditions(now).mark_unknown(CHANNELS_READY, "ChannelsNotReady", &why);
        Stopped
    })?;
    report_channels(next, &channels, now);
    let subscriptions = subscriptions(children, &channels).map_err(|why| {
        next.conditions(now).mark_unknown(SUBSCRIPTIONS_READY, "SubscriptionsNotReady", &why);
        Stopped
    })?;
    report_subscriptions(next, &subscriptions, now);
    children.remove_others(&channels.iter().collect::<Vec<_>>(), &subscriptions.iter().collect::<Vec<_>>());
    policies::report(children.world, next, now, |next| &mut next.status.policies);
    settle_policies(children, &channels, &subscriptions);
    Ok(())
}

fn channels(children: &mut Children<'_, Sequence>) -> Result<Vec<FlowChannel>, String> {
    let steps = 0..children.owner.spec.steps.len();
    let channel = |step| {
        let name = name(children.owner, step);
        let failed = |why| format!("failed to reconcile channel {name} at step {step}: {why}");
        children.channel(name.clone()).map_err(failed)
    };
    steps.map(channel).collect()
}

fn subscriptions(
    children: &mut Children<'_, Sequence>,
    channels: &[FlowChannel],
) -> Result<Vec<FlowSubscription>, String> {
    let owner = children.owner;
    let steps = owner.spec.steps.iter().zip(channels).enumerate();
    let subscription = |(at, (step, channel)): (usize, (&knoll_api::flows::SequenceStep, &FlowChannel))| {
        let reply = channels.get(at + 1).map(FlowChannel::destination).or_else(|| owner.spec.reply.clone());
        let spec = channel.subscribed(step.destination.clone(), reply, step.delivery.clone());
        let failed = |why| format!("failed to reconcile subscription resource for step: {at} : {why}");
        children.subscription(name(owner, at), spec).map_err(failed)
    };
    steps.map(subscription).collect()
}

/// Who may send into the channels: into the first who may send to the Sequence, into each other one the step before it.
fn settle_policies(
    children: &mut Children<'_, Sequence>,
    channels: &[FlowChannel],
    subscriptions: &[FlowSubscription],
) {
    let owner = children.owner;
    let labels = map([("flows.knative.dev/sequence-name", owner.name())]);
    let named = |of: &str| names::child(owner.name(), &format!("-{of}"));
    let mut backing = BackingPolicies::of(children.world, owner, labels);
    if let Some(first) = channels.first() {
        backing.admit_those_of_owner((first.kind, &first.key), named);
    }
    for (channel, before) in channels.iter().skip(1).zip(subscriptions) {
        backing.admit_subscription((channel.kind, &channel.key), named(&channel.key.name), &before.key);
    }
    backing.settle(children.plan);
}

/// The first channel is where the Sequence takes events.
fn report_channels(next: &mut Sequence, channels: &[FlowChannel], now: Timestamp) {
    let statuses: Vec<FlowChannelStatus> = channels.iter().map(FlowChannel::by_condition).collect();
    let are_ready = !statuses.is_empty() && statuses.iter().all(|status| is_true(&status.ready));
    next.status.channel_statuses = statuses;
    let first = channels.first().and_then(|first| first.channel.status.address.address.clone());
    let address = first.filter(|address| address.url.is_some());
    let unnamed = address.map(|address| Addressable { name: None, ..address });
    let is_addressable = unnamed.is_some();
    next.status.address = AddressStatus { address: unnamed, addresses: Vec::new() };
    let mut conditions = next.conditions(now);
    match is_addressable {
        true => conditions.mark_true(ADDRESSABLE),
        false => conditions.mark_unknown(ADDRESSABLE, "emptyAddress", "addressable is nil"),
    };
    let (reason, text) = flow::CHANNELS_NOT_READY;
    match are_ready {
        true => conditions.mark_true(CHANNELS_READY),
        false => conditions.mark_unknown(CHANNELS_READY, reason, text),
    };
}

fn report_subscriptions(next: &mut Sequence, subscriptions: &[FlowSubscription], now: Timestamp) {
    let status = |subscription: &FlowSubscription| subscription.by_condition(flow::subscription_without_ready);
    let statuses: Vec<_> = subscriptions.iter().map(status).collect();
    let are_ready = !statuses.is_empty() && statuses.iter().all(|status| is_true(&status.ready));
    next.status.subscription_statuses = statuses;
    next.status.auth = flow::auth(subscriptions.iter());
    let (reason, text) = flow::SUBSCRIPTIONS_NOT_READY;
    let mut conditions = next.conditions(now);
    match are_ready {
        true => conditions.mark_true(SUBSCRIPTIONS_READY),
        false => conditions.mark_unknown(SUBSCRIPTIONS_READY, reason, text),
    };
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, status, unhappy};
    use super::*;
    use crate::{
        Want,
        check::{check_in, planned},
    };

    const SEQUENCE: &str = r#"
apiVersion: flows.knative.dev/v1
kind: Sequence
metadata: {name: s}
spec:
  channelTemplate: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel, spec: {delivery: {retry: 3}}}
  steps:
  - {ref: {apiVersion: v1, kind: Service, name: one}, delivery: {retry: 1, deadLetterSink: {ref: {apiVersion: v1, kind: Service, name: dls}}}}
  - {uri: 'http://two'}
  reply: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b, namespace: other}}
"#;

    fn channel(at: usize, status: &str) -> String {
        format!(
            "apiVersion: messaging.knative.dev/v1\nkind: InMemoryChannel\nmetadata: {{name: s-kn-sequence-{at}, owner: \
             Sequence/s}}\nspec: {{delivery: {{retry: 3}}}}\nstatus: {{address: {{name: http, url: 'http://c{at}'}}, \
             conditions: [{{type: Ready, {status}}}]}}\n"
        )
    }

    fn subscription(at: usize, spec: &str, status: &str) -> String {
        format!(
            "apiVersion: messaging.knative.dev/v1\nkind: Subscription\nmetadata: {{name: s-kn-sequence-{at}, owner: \
             Sequence/s}}\nspec: {{channel: {{apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel, name: \
             s-kn-sequence-{at}}}, {spec}}}\nstatus: {{conditions: [{{type: Ready, {status}}}], auth: {{serviceAccountName: \
             a{at}}}}}\n"
        )
    }

    const FIRST: &str = "subscriber: {ref: {apiVersion: v1, kind: Service, name: one, namespace: default}}, reply: {ref: \
                         {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel, name: s-kn-sequence-1, namespace: \
                         default}}, delivery: {retry: 1, deadLetterSink: {ref: {apiVersion: v1, kind: Service, name: dls, \
                         namespace: default}}}";
    const SECOND: &str = "subscriber: {uri: 'http://two'}, reply: {ref: {apiVersion: eventing.knative.dev/v1, kind: \
                          Broker, name: b, namespace: other}}";
    const READY: &str = "status: 'True'";

    #[test]
    fn each_step_gets_a_channel_and_a_subscription_whose_answers_go_on() {
        check_in(
            &ROW,
            "default/s",
            cluster(&[SEQUENCE], &[]),
            expect![[r#"
            create InMemoryChannel default/s-kn-sequence-0
              delivery {"retry":3}
            create InMemoryChannel default/s-kn-sequence-1
              delivery {"retry":3}
            create Subscription default/s-kn-sequence-0
              channel {"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"s-kn-sequence-0"}
              delivery {"deadLetterSink":{"ref":{"apiVersion":"v1","kind":"Service","name":"dls","namespace":"default"}},"retry":1}
              reply {"ref":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"s-kn-sequence-1","namespace":"default"}}
              subscriber {"ref":{"apiVersion":"v1","kind":"Service","name":"one","namespace":"default"}}
            create Subscription default/s-kn-sequence-1
              channel {"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"s-kn-sequence-1"}
              reply {"ref":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b","namespace":"other"}}
              subscriber {"uri":"http://two"}
            status Sequence default/s
              channelStatuses [{"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"s-kn-sequence-0","namespace":"default"},"ready":{"message":"Channel does not have Ready condition","reason":"NoReady","status":"Unknown","type":"Ready"}},{"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"s-kn-sequence-1","namespace":"default"},"ready":{"message":"Channel does not have Ready condition","reason":"NoReady","status":"Unknown","type":"Ready"}}]
              observedGeneration 1
              subscriptionStatuses [{"ready":{"message":"Subscription does not have Ready condition","reason":"NoReady","status":"Unknown","type":"Ready"},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"s-kn-sequence-0","namespace":"default"}},{"ready":{"message":"Subscription does not have Ready condition","reason":"NoReady","status":"Unknown","type":"Ready"},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"s-kn-sequence-1","namespace":"default"}}]
              Addressable=Unknown emptyAddress addressable is nil
              ChannelsReady=Unknown ChannelsNotReady Channels are not ready yet, or there are none
              EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
              Ready=Unknown SubscriptionsNotReady Subscriptions are not ready yet, or there are none
              SubscriptionsReady=Unknown SubscriptionsNotReady Subscriptions are not ready yet, or there are none
        "#]],
        );
    }

    #[test]
    fn a_sequence_is_ready_when_all_its_parts_are() {
        let (c0, c1) = (channel(0, READY), channel(1, READY));
        let (s0, s1) = (subscription(0, FIRST, READY), subscription(1, SECOND, READY));
        check_in(
            &ROW,
            "default/s",
            cluster(&[SEQUENCE, &c0, &c1, &s0, &s1], &[]),
            expect![[r#"
            status Sequence default/s
              address {"url":"http://c0"}
              auth {"serviceAccountNames":["a0","a1"]}
              channelStatuses [{"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"s-kn-sequence-0","namespace":"default"},"ready":{"status":"True","type":"Ready"}},{"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"s-kn-sequence-1","namespace":"default"},"ready":{"status":"True","type":"Ready"}}]
              observedGeneration 1
              subscriptionStatuses [{"ready":{"status":"True","type":"Ready"},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"s-kn-sequence-0","namespace":"default"}},{"ready":{"status":"True","type":"Ready"},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"s-kn-sequence-1","namespace":"default"}}]
              Addressable=True
              ChannelsReady=True
              EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
              Ready=True
              SubscriptionsReady=True
        "#]],
        );
        let young = channel(1, "status: Unknown, reason: R");
        let told = unhappy(&ROW, "default/s", &cluster(&[SEQUENCE, &c0, &young, &s0, &s1], &[]));
        assert!(
            told.starts_with("ChannelsReady=Unknown ChannelsNotReady Channels are not ready yet, or there are none\n"),
            "{told}"
        );
        let failed = subscription(1, SECOND, "status: 'False', reason: R");
        let told = unhappy(&ROW, "default/s", &cluster(&[SEQUENCE, &c0, &c1, &s0, &failed], &[]));
        assert!(
            told.contains("SubscriptionsReady=Unknown SubscriptionsNotReady Subscriptions are not ready yet"),
            "{told}"
        );
    }

    #[test]
    fn what_a_shorter_sequence_no_longer_has_goes() {
        let (c0, c1, c2) = (channel(0, READY), channel(1, READY), channel(2, READY));
        let (s0, s2) = (subscription(0, FIRST, READY), subscription(2, SECOND, READY));
        let s1 = subscription(1, SECOND, READY);
        let plan = planned(&ROW, "default/s", &cluster(&[SEQUENCE, &c0, &c1, &c2, &s0, &s1, &s2], &[]));
        let deleted = |want: &Want| match want {
            Want::Delete { kind, key, .. } => Some(format!("{} {}", kind.kind(), key.name)),
            _ => None,
        };
        let deleted: Vec<String> = plan.wants.iter().filter_map(deleted).collect();
        assert_eq!(deleted, ["InMemoryChannel s-kn-sequence-2", "Subscription s-kn-sequence-2"]);
        assert_eq!(status(&plan)["channelStatuses"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn a_step_that_changes_is_updated_and_one_on_another_channel_made_anew() {
        let changed = subscription(0, &FIRST.replace("name: one", "name: old"), READY);
        let moved = subscription(1, SECOND, READY).replace("kind: InMemoryChannel", "kind: Channel");
        let (c0, c1) = (channel(0, READY), channel(1, READY));
        let plan = planned(&ROW, "default/s", &cluster(&[SEQUENCE, &c0, &c1, &changed, &moved], &[]));
        let Want::Update(knoll_api::Object::Subscription(next)) = &plan.wants[0] else { panic!("{plan:?}") };
        let name = next.spec.subscriber.as_ref().and_then(|to| Some(to.ref_.as_ref()?.name.as_str()));
        assert_eq!(name, Some("one"));
        assert!(matches!(&plan.wants[1], Want::Delete { kind: Kind::Subscription, .. }), "{plan:?}");
    }

    #[test]
    fn a_kind_of_channel_that_is_not_served_is_told() {
        let kafka = SEQUENCE.replace("kind: InMemoryChannel", "kind: KafkaChannel");
        let told = unhappy(&ROW, "default/s", &cluster(&[&kafka], &[]));
        let text = "failed to reconcile channel s-kn-sequence-0 at step 0: no channel of kind KafkaChannel";
        assert!(told.contains(&format!("ChannelsReady=Unknown ChannelsNotReady {text}")), "{told}");
    }
}
