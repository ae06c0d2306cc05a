//! RequestReply → a Trigger that brings answers back to the data plane, and where requests go.
//!
//! Upstream has a Trigger for each pod of its data plane, which a function in its filter picks by the answer. Here the data
//! plane is one: its Trigger lets through what claims to be an answer, and the data plane knows which requests wait.

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    duck::Destination,
    eventing::{
        RequestReply, SubscriptionsApiFilter, Trigger, TriggerSpec,
        services::{REQUEST_REPLY, REQUEST_REPLY_SECRET},
    },
    names,
};

use super::{
    Stopped,
    addresses::{self, Place},
    destination, is_carried,
    terms::is_decidable,
};
use crate::{
    Absence, Mapper, Plan, Row, SystemConfig, World, by_controller,
    children::{child_of, map, says},
    status::Reporting,
};

/// Annotation of the status: where requests are sent to.
const BROKER_ADDRESS: &str = "knative.dev/brokerAddress";
/// How many there are of the data plane.
const REPLICAS: i32 = 1;
const TRIGGERS_READY: &str = "TriggersReady";
const BROKER_READY: &str = "BrokerReady";
const EVENT_POLICIES_READY: &str = "EventPoliciesReady";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "request-reply",
    of: Kind::RequestReply,
    wakes: WAKES,
    configs: &[SystemConfig::Eventing("config-features")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};
const WAKES: &[(Kind, Mapper)] =
    &[(Kind::Trigger, by_controller), (Kind::Broker, destination::by_reference), (Kind::Secret, by_certificate)];

fn by_certificate(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    addresses::by_secret(world, object, of, REQUEST_REPLY_SECRET)
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(replies) = world.request_replies.get(key).filter(|replies| is_decidable(world, replies.as_ref())) else {
        return plan;
    };
    let mut next = RequestReply::clone(&replies);
    next.conditions(now).initialize();
    reconcile(world, &mut next, &mut plan, now);
    plan.report(replies.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut RequestReply, plan: &mut Plan, now: Timestamp) {
    // That its address is not known keeps nothing else from being looked at.
    addresses::settle_without_audience(world, next, place(world, next), now, |next| &mut next.status.address)
        .unwrap_or(());
    // Upstream's words: its clients and suites look for them.
    let text = "Event policies not implemented for RequestReply yet";
    next.conditions(now).mark_true_with_reason(EVENT_POLICIES_READY, "NotImplemented", text);
    // What each says is in the status; one does not keep the other from being looked at.
    follow_trigger(world, next, plan, now).unwrap_or(());
    follow_broker(world, next, now).unwrap_or(());
}

/// The host of all RequestReplies, which are told apart by path.
fn host(world: &World) -> String {
    destination::service_host(world, &Key::new(&world.settings.eventing_namespace, REQUEST_REPLY))
}

fn place(world: &World, replies: &RequestReply) -> Place {
    let at = format!("{}/{}/{}", host(world), replies.namespace(), replies.name());
    Place { http: format!("http://{at}"), https: format!("https://{at}"), secret: REQUEST_REPLY_SECRET }
}

fn follow_trigger(world: &World, next: &mut RequestReply, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    let trigger = settle_trigger(world, next, plan).map_err(|why| {
        let text = format!("Encountered errors reconciling triggers: {why}");
        next.conditions(now).mark_unknown(TRIGGERS_READY, "TriggerReconcileError", &text);
        Stopped
    })?;
    let is_ready = trigger.is_some_and(|trigger| trigger.is_ready()) && is_carried(world, next);
    (next.status.desired_replicas, next.status.ready_replicas) = (Some(REPLICAS), Some(i32::from(is_ready)));
    if is_ready {
        next.conditions(now).mark_true(TRIGGERS_READY);
    } else {
        next.conditions(now).mark_unknown(TRIGGERS_READY, "TriggersNotReady", "not all triggers are ready yet");
    }
    Ok(())
}

/// Sees to the Trigger; returns it where it is as it should be.
fn settle_trigger(
    world: &World,
    replies: &RequestReply,
    plan: &mut Plan,
) -> Result<Option<std::sync::Arc<Trigger>>, String> {
    let wanted = trigger(world, replies)?;
    let key = wanted.key();
    let Some(existing) = world.triggers.get(&key) else {
        let refusal = world.observed.refusals.get(&(Kind::Trigger, key));
        let refused = refusal.map(|refusal| format!("failed to create trigger: {}", refusal.message));
        plan.create(wanted);
        return refused.map_or(Ok(None), Err);
    };
    if !existing.is_controlled_by(replies) {
        return Err(format!("trigger {:?} is not owned by RequestReply {:?}", key.name, replies.name()));
    }
    if says(&existing.spec, &wanted.spec) {
        return Ok(Some(existing));
    }
    plan.update(existing.as_ref(), Trigger { spec: wanted.spec, ..Trigger::clone(&existing) });
    Ok(None)
}

fn trigger(world: &World, replies: &RequestReply) -> Result<Trigger, String> {
    let attribute = &replies.spec.reply_attribute;
    let is_attribute = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if attribute.is_empty() || !attribute.bytes().all(is_attribute) {
        return Err(format!(
            "spec.replyAttribute {attribute:?} is no name of an attribute; use lower-case letters and digits"
        ));
    }
    let (namespace, name) = (replies.namespace(), replies.name());
    let replicas = REPLICAS.to_string();
    let labels = map([
        ("eventing.knative.dev/RequestReply.name", name),
        ("eventing.knative.dev/RequestReply.namespace", namespace),
        ("eventing.knative.dev/RequestReply.dataPlaneReplicas", replicas.as_str()),
    ]);
    let filter = SubscriptionsApiFilter { cesql: format!("EXISTS {attribute}"), ..SubscriptionsApiFilter::default() };
    // Answers come to it inside the data plane, however others travel.
    let uri = format!("http://{}/{namespace}/{name}/reply", host(world));
    Ok(Trigger {
        metadata: child_of(replies, names::child(name, &format!("0-{REPLICAS}")), labels, Default::default()),
        spec: TriggerSpec {
            broker: replies.spec.broker_ref.name.clone(),
            filters: vec![filter],
            subscriber: Destination { uri: Some(uri), ..Destination::default() },
            ..TriggerSpec::default()
        },
        ..Trigger::default()
    })
}

fn follow_broker(world: &World, next: &mut RequestReply, now: Timestamp) -> Result<(), Stopped> {
    let key = next.key().sibling(next.spec.broker_ref.name.clone());
    let Some(broker) = world.brokers.get(&key) else {
        let text = format!("could not get broker: {}", destination::not_found(Kind::Broker, &key.name));
        next.conditions(now).mark_unknown(BROKER_READY, "NotFound", &text);
        return Err(Stopped);
    };
    let url = broker.status.address.address.as_ref().and_then(|address| address.url.clone());
    let Some(url) = url.filter(|_| broker.is_ready()) else {
        next.conditions(now).mark_false(BROKER_READY, "NotReady", "broker is not ready");
        return Err(Stopped);
    };
    next.status.common.annotations.insert(BROKER_ADDRESS.to_owned(), url);
    next.conditions(now).mark_true(BROKER_READY);
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::super::fixture::{cluster, feature, status, unhappy};
    use super::*;
    use crate::check::{NOW, check_in, planned};

    const REPLIES: &str = "apiVersion: eventing.knative.dev/v1alpha1\nkind: RequestReply\nmetadata: {name: r}\nspec: \
                           {brokerRef: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}, replyAttribute: replyid}\n";
    const BROKER: &str = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: b}\nstatus: \
                          {observedGeneration: 1, address: {url: 'http://in/default/b'}, conditions: [{type: Ready, status: 'True'}]}\n";
    const CARRIED: &[(Kind, &str)] = &[(Kind::RequestReply, "r")];

    #[test]
    fn a_request_reply_gets_a_trigger_for_answers() {
        check_in(
            &ROW,
            "default/r",
            cluster(&[REPLIES, BROKER], &[]),
            expect![[r#"
            create Trigger default/r0-1
              labels eventing.knative.dev/RequestReply.dataPlaneReplicas="1" eventing.knative.dev/RequestReply.name="r" eventing.knative.dev/RequestReply.namespace="default"
              broker "b"
              filters [{"cesql":"EXISTS replyid"}]
              subscriber {"uri":"http://request-reply.knative-eventing.svc.cluster.local/default/r/reply"}
            status RequestReply default/r
              address {"name":"http","url":"http://request-reply.knative-eventing.svc.cluster.local/default/r"}
              annotations {"knative.dev/brokerAddress":"http://in/default/b"}
              desiredReplicas 1
              observedGeneration 1
              readyReplicas 0
              Addressable=True
              BrokerReady=True
              EventPoliciesReady=True NotImplemented Event policies not implemented for RequestReply yet
              Ready=Unknown TriggersNotReady not all triggers are ready yet
              TriggersReady=Unknown TriggersNotReady not all triggers are ready yet
        "#]],
        );
    }

    #[test]
    fn it_is_addressed_as_events_travel_and_asks_nobody_who_they_are() {
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: request-reply-server-tls, namespace: \
                      knative-eventing}\ndata: {ca.crt: UEVN}\n";
        let mut cluster = cluster(&[REPLIES, BROKER], CARRIED);
        feature(&mut cluster, "transport-encryption", "strict");
        feature(&mut cluster, "authentication-oidc", "enabled");
        let told = unhappy(&ROW, "default/r", &cluster);
        assert!(told.contains("Addressable=Unknown CACertsNotAvailable failed to get CA certs from"), "{told}");
        cluster.add(secret);
        let expected = expect![[
            r#"{"CACerts":"PEM","name":"https","url":"https://request-reply.knative-eventing.svc.cluster.local/default/r"}"#
        ]];
        expected.assert_eq(&status(&planned(&ROW, "default/r", &cluster))["address"].to_string());
    }

    #[test]
    fn it_is_ready_when_its_trigger_and_its_broker_are_and_its_requests_are_taken() {
        for carried in [&[], CARRIED] {
            let mut cluster = cluster(&[REPLIES, BROKER], carried);
            planned(&ROW, "default/r", &cluster).wants.iter().for_each(|want| cluster.carry_out(want, NOW));
            cluster.edit(Kind::Trigger, &Key::new("default", "r0-1"), |value| {
                value["status"] = json!({"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]});
            });
            if carried.is_empty() {
                assert!(planned(&ROW, "default/r", &cluster).is_empty(), "it goes on waiting");
            } else {
                assert_eq!(unhappy(&ROW, "default/r", &cluster), "");
            }
        }
    }

    #[test]
    fn what_keeps_it_from_being_ready_is_told() {
        let odd = REPLIES.replace("replyAttribute: replyid", "replyAttribute: 'reply OR TRUE'");
        let taken = "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: r0-1}\n";
        let young = BROKER.replace("'True'", "Unknown");
        for (fixtures, expected) in [
            (
                vec![REPLIES],
                "BrokerReady=Unknown NotFound could not get broker: brokers.eventing.knative.dev \"b\" not found\n",
            ),
            (vec![REPLIES, &young], "BrokerReady=False NotReady broker is not ready\n"),
            (
                vec![&odd, BROKER],
                "TriggersReady=Unknown TriggerReconcileError Encountered errors reconciling triggers: spec.replyAttribute \"reply OR TRUE\" is no name of an attribute; use lower-case letters and digits\n",
            ),
            (
                vec![REPLIES, BROKER, taken],
                "TriggersReady=Unknown TriggerReconcileError Encountered errors reconciling triggers: trigger \"r0-1\" is not owned by RequestReply \"r\"\n",
            ),
        ] {
            let told = unhappy(&ROW, "default/r", &cluster(&fixtures, CARRIED));
            assert!(told.contains(expected), "{told}");
        }
    }
}
