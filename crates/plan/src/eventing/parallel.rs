//! Parallel → a channel that takes events, and for each branch a channel behind its filter: one Subscription puts events
//! through the filter into it, another takes them from there to the subscriber.

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    conditions::is_true,
    duck::AddressStatus,
    flows::{Parallel, ParallelBranch, ParallelBranchStatus},
    names,
    status::Condition,
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
    name: "parallel",
    of: Kind::Parallel,
    wakes: flow::WAKES,
    configs: &[SystemConfig::Eventing("config-features")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

/// The parts of a branch.
struct Branch {
    channel: FlowChannel,
    /// From the Parallel's channel through the filter to the branch's.
    filter: FlowSubscription,
    /// From the branch's channel to the subscriber.
    subscriber: FlowSubscription,
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(parallel) = world.parallels.get(key).filter(|parallel| !parallel.is_deleting()) else { return plan };
    let mut next = Parallel::clone(&parallel);
    next.conditions(now).initialize();
    let template = parallel.spec.channel_template.as_ref();
    let mut children = Children { world, owner: parallel.as_ref(), template, plan: &mut plan };
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(&mut children, &mut next, now).unwrap_or(());
    plan.report(parallel.as_ref(), next);
    plan
}

/// Who may send into the channels: into the Parallel's who may send to it, into that of a branch its filter.
fn settle_policies(children: &mut Children<'_, Parallel>, ingress: &FlowChannel, branches: &[Branch]) {
    let owner = children.owner;
    let labels = map([("flows.knative.dev/parallel-name", owner.name())]);
    let named = |of: &str| names::child(owner.name(), &format!("-ep-{of}"));
    let mut backing = BackingPolicies::of(children.world, owner, labels);
    backing.admit_those_of_owner((ingress.kind, &ingress.key), named);
    for Branch { channel, filter, .. } in branches {
        backing.admit_subscription((channel.kind, &channel.key), named(&channel.key.name), &filter.key);
    }
    backing.settle(children.plan);
}

fn reconcile(children: &mut Children<'_, Parallel>, next: &mut Parallel, now: Timestamp) -> Result<(), Stopped> {
    let (ingress, channels) = channels(children).map_err(|why| {
        next.conditions(now).mark_false(CHANNELS_READY, "ChannelsNotReady", &why);
        Stopped
    })?;
    report_channels(next, &ingress, &channels, now);
    let branches = branches(children, &ingress, channels).map_err(|why| {
        next.conditions(now).mark_false(SUBSCRIPTIONS_READY, "SubscriptionsNotReady", &why);
        Stopped
    })?;
    report_branches(next, &branches, now);
    let kept: Vec<&FlowChannel> = branches.iter().map(|branch| &branch.channel).chain([&ingress]).collect();
    let subscribed: Vec<_> = branches.iter().flat_map(|branch| [&branch.filter, &branch.subscriber]).collect();
    children.remove_others(&kept, &subscribed);
    policies::report(children.world, next, now, |next| &mut next.status.policies);
    settle_policies(children, &ingress, &branches);
    Ok(())
}

/// The Parallel's channel, and those of its branches.
fn channels(children: &mut Children<'_, Parallel>) -> Result<(FlowChannel, Vec<FlowChannel>), String> {
    let parallel = children.owner;
    let mut channel = |name: String, step: &str| {
        let failed = |why| format!("failed to reconcile channel {name} at step {step}: {why}");
        children.channel(name.clone()).map_err(failed)
    };
    let ingress = channel(format!("{}-kn-parallel", parallel.name()), "-1")?;
    let branch = |at: usize| channel(format!("{}-kn-parallel-{at}", parallel.name()), &at.to_string());
    let branches = (0..parallel.spec.branches.len()).map(branch).collect::<Result<_, _>>()?;
    Ok((ingress, branches))
}

fn branches(
    children: &mut Children<'_, Parallel>,
    ingress: &FlowChannel,
    channels: Vec<FlowChannel>,
) -> Result<Vec<Branch>, String> {
    let parallel = children.owner;
    let branch = |(at, (spec, channel)): (usize, (&ParallelBranch, FlowChannel))| {
        let failed = |why| format!("failed to reconcile Subscription Objects for branch: {at} : {why}");
        // Without a filter everything goes straight on: the channel is who is subscribed.
        let through = match &spec.filter {
            Some(filter) => ingress.subscribed(filter.clone(), Some(channel.destination()), None),
            None => ingress.subscribed(channel.destination(), None, None),
        };
        let name = format!("{}-kn-parallel-filter-{at}", parallel.name());
        let filter = children.subscription(name, through).map_err(failed)?;
        let reply = spec.reply.clone().or_else(|| parallel.spec.reply.clone());
        let to = channel.subscribed(spec.subscriber.clone(), reply, spec.delivery.clone());
        let name = format!("{}-kn-parallel-{at}", parallel.name());
        let subscriber = children.subscription(name, to).map_err(failed)?;
        Ok(Branch { channel, filter, subscriber })
    };
    parallel.spec.branches.iter().zip(channels).enumerate().map(branch).collect()
}

fn report_channels(next: &mut Parallel, ingress: &FlowChannel, channels: &[FlowChannel], now: Timestamp) {
    next.status.ingress_channel_status = ingress.by_address();
    next.status.branch_statuses.resize(channels.len(), ParallelBranchStatus::default());
    for (status, channel) in next.status.branch_statuses.iter_mut().zip(channels) {
        status.filter_channel_status = channel.by_address();
    }
    let address = ingress.channel.status.address.address.clone();
    let is_addressable = address.is_some();
    next.status.address = AddressStatus { address, addresses: Vec::new() };
    let branches = next.status.branch_statuses.iter().map(|status| &status.filter_channel_status);
    let are_ready = branches.chain([&next.status.ingress_channel_status]).all(|status| is_true(&status.ready));
    let mut conditions = next.conditions(now);
    match is_addressable {
        true => conditions.mark_true(ADDRESSABLE),
        false => conditions.mark_false(ADDRESSABLE, "emptyAddress", "addressable is nil"),
    };
    let (reason, text) = flow::CHANNELS_NOT_READY;
    match are_ready {
        true => conditions.mark_true(CHANNELS_READY),
        false => conditions.mark_false(CHANNELS_READY, reason, text),
    };
}

fn report_branches(next: &mut Parallel, branches: &[Branch], now: Timestamp) {
    for (status, branch) in next.status.branch_statuses.iter_mut().zip(branches) {
        status.filter_subscription_status = branch.filter.by_condition(Condition::default);
        status.subscription_status = branch.subscriber.by_condition(Condition::default);
    }
    next.status.auth = flow::auth(branches.iter().flat_map(|branch| [&branch.filter, &branch.subscriber]));
    let ready = |status: &ParallelBranchStatus| {
        is_true(&status.filter_subscription_status.ready) && is_true(&status.subscription_status.ready)
    };
    let are_ready = !branches.is_empty() && next.status.branch_statuses.iter().all(ready);
    let (reason, text) = flow::SUBSCRIPTIONS_NOT_READY;
    let mut conditions = next.conditions(now);
    match are_ready {
        true => conditions.mark_true(SUBSCRIPTIONS_READY),
        false => conditions.mark_false(SUBSCRIPTIONS_READY, reason, text),
    };
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, unhappy};
    use super::*;
    use crate::{
        Want,
        check::{NOW, check_in, planned},
    };

    const PARALLEL: &str = r#"
apiVersion: flows.knative.dev/v1
kind: Parallel
metadata: {name: p}
spec:
  channelTemplate: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}
  branches:
  - {filter: {ref: {apiVersion: v1, kind: Service, name: f}}, subscriber: {uri: 'http://one'}, reply: {uri: 'http://r1'}, delivery: {retry: 2}}
  - {subscriber: {uri: 'http://two'}}
  reply: {uri: 'http://r'}
"#;

    #[test]
    fn each_branch_gets_a_channel_behind_its_filter() {
        check_in(
            &ROW,
            "default/p",
            cluster(&[PARALLEL], &[]),
            expect![[r#"
            create InMemoryChannel default/p-kn-parallel
            create InMemoryChannel default/p-kn-parallel-0
            create InMemoryChannel default/p-kn-parallel-1
            create Subscription default/p-kn-parallel-filter-0
              channel {"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel"}
              reply {"ref":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel-0","namespace":"default"}}
              subscriber {"ref":{"apiVersion":"v1","kind":"Service","name":"f","namespace":"default"}}
            create Subscription default/p-kn-parallel-0
              channel {"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel-0"}
              delivery {"retry":2}
              reply {"uri":"http://r1"}
              subscriber {"uri":"http://one"}
            create Subscription default/p-kn-parallel-filter-1
              channel {"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel"}
              subscriber {"ref":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel-1","namespace":"default"}}
            create Subscription default/p-kn-parallel-1
              channel {"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel-1"}
              reply {"uri":"http://r"}
              subscriber {"uri":"http://two"}
            status Parallel default/p
              branchStatuses [{"filterChannelStatus":{"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel-0","namespace":"default"},"ready":{"message":"Channel is not addressable","reason":"NotAddressable","status":"False","type":"Ready"}},"filterSubscriptionStatus":{"ready":{"status":"","type":""},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"p-kn-parallel-filter-0","namespace":"default"}},"subscriberSubscriptionStatus":{"ready":{"status":"","type":""},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"p-kn-parallel-0","namespace":"default"}}},{"filterChannelStatus":{"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel-1","namespace":"default"},"ready":{"message":"Channel is not addressable","reason":"NotAddressable","status":"False","type":"Ready"}},"filterSubscriptionStatus":{"ready":{"status":"","type":""},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"p-kn-parallel-filter-1","namespace":"default"}},"subscriberSubscriptionStatus":{"ready":{"status":"","type":""},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"p-kn-parallel-1","namespace":"default"}}}]
              ingressChannelStatus {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel","namespace":"default"},"ready":{"message":"Channel is not addressable","reason":"NotAddressable","status":"False","type":"Ready"}}
              observedGeneration 1
              Addressable=False emptyAddress addressable is nil
              ChannelsReady=False ChannelsNotReady Channels are not ready yet, or there are none
              EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
              Ready=False SubscriptionsNotReady Subscriptions are not ready yet, or there are none
              SubscriptionsReady=False SubscriptionsNotReady Subscriptions are not ready yet, or there are none
        "#]],
        );
    }

    #[test]
    fn a_parallel_is_ready_when_all_its_parts_are() {
        let mut cluster = cluster(&[PARALLEL], &[]);
        planned(&ROW, "default/p", &cluster).wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        let ready = serde_json::json!([{"type": "Ready", "status": "True"}]);
        for key in cluster.world.keys(Kind::InMemoryChannel) {
            let url = format!("http://{}", key.name);
            cluster.edit(Kind::InMemoryChannel, &key, |value| {
                value["status"] = serde_json::json!({"address": {"url": url}})
            });
        }
        let told = unhappy(&ROW, "default/p", &cluster);
        assert_eq!(
            told.lines().next(),
            Some("Ready=False SubscriptionsNotReady Subscriptions are not ready yet, or there are none")
        );
        for key in cluster.world.keys(Kind::Subscription) {
            let status = serde_json::json!({"conditions": ready, "auth": {"serviceAccountName": key.name}});
            cluster.edit(Kind::Subscription, &key, |value| value["status"] = status);
        }
        check_in(
            &ROW,
            "default/p",
            cluster,
            expect![[r#"
            status Parallel default/p
              address {"url":"http://p-kn-parallel"}
              auth {"serviceAccountNames":["p-kn-parallel-filter-0","p-kn-parallel-0","p-kn-parallel-filter-1","p-kn-parallel-1"]}
              branchStatuses [{"filterChannelStatus":{"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel-0","namespace":"default"},"ready":{"status":"True","type":"Ready"}},"filterSubscriptionStatus":{"ready":{"status":"True","type":"Ready"},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"p-kn-parallel-filter-0","namespace":"default"}},"subscriberSubscriptionStatus":{"ready":{"status":"True","type":"Ready"},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"p-kn-parallel-0","namespace":"default"}}},{"filterChannelStatus":{"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel-1","namespace":"default"},"ready":{"status":"True","type":"Ready"}},"filterSubscriptionStatus":{"ready":{"status":"True","type":"Ready"},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"p-kn-parallel-filter-1","namespace":"default"}},"subscriberSubscriptionStatus":{"ready":{"status":"True","type":"Ready"},"subscription":{"apiVersion":"messaging.knative.dev/v1","kind":"Subscription","name":"p-kn-parallel-1","namespace":"default"}}}]
              ingressChannelStatus {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel","name":"p-kn-parallel","namespace":"default"},"ready":{"status":"True","type":"Ready"}}
              observedGeneration 1
              Addressable=True
              ChannelsReady=True
              EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
              Ready=True
              SubscriptionsReady=True
        "#]],
        );
    }

    #[test]
    fn what_a_narrower_parallel_no_longer_has_goes() {
        let mut cluster = cluster(&[PARALLEL], &[]);
        planned(&ROW, "default/p", &cluster).wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        cluster.edit(Kind::Parallel, &Key::new("default", "p"), |value| {
            value["spec"]["branches"].as_array_mut().expect("branches").truncate(1);
        });
        let plan = planned(&ROW, "default/p", &cluster);
        let deleted = |want: &Want| match want {
            Want::Delete { kind, key, .. } => Some(format!("{} {}", kind.kind(), key.name)),
            _ => None,
        };
        let deleted: Vec<String> = plan.wants.iter().filter_map(deleted).collect();
        let expected =
            ["InMemoryChannel p-kn-parallel-1", "Subscription p-kn-parallel-1", "Subscription p-kn-parallel-filter-1"];
        assert_eq!(deleted, expected);
    }
}
