//! InMemoryChannel: its name inside the cluster, who is subscribed, and whether its events are taken.
//!
//! The name is upstream's; the events are in the log here. One data plane serves every channel, whatever scope the channel
//! asks for.

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    duck::SubscriberStatus,
    eventing::services::{
        CHANNEL_DISPATCHER as DISPATCHER, CHANNEL_DISPATCHER_SECRET as DISPATCHER_SECRET, CHANNEL_SUFFIX,
    },
    messaging::InMemoryChannel,
};

use super::{
    Stopped,
    addresses::{self, Place},
    alias, carried, destination, is_carried, policies, settle_dead_letters,
    subscribers::{by_subscription, subscribers},
    terms::is_in_doubt,
};
use crate::{
    Absence, Mapper, Plan, Row, SystemConfig, World, by_controller, by_same_key, children::map, status::Reporting,
};

const DISPATCHER_READY: &str = "DispatcherReady";
const SERVICE_READY: &str = "ServiceReady";
const ENDPOINTS_READY: &str = "EndpointsReady";
const CHANNEL_SERVICE_READY: &str = "ChannelServiceReady";

const WAKES: [(Kind, Mapper); 18] = destination::wakes([
    (Kind::CoreService, by_controller),
    (Kind::Subscription, by_subscription),
    (Kind::Channel, by_same_key),
    (Kind::EventPolicy, policies::by_policy),
    (Kind::Secret, by_certificate),
]);

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "in-memory-channel",
    of: Kind::InMemoryChannel,
    wakes: &WAKES,
    configs: &[SystemConfig::Eventing("config-features"), SystemConfig::Eventing("config-kreference-mapping")],
    reads: &[],
    absence: Absence::TurnsOffFor(&[Kind::Subscription, Kind::Channel]),
    plan,
};

fn by_certificate(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    addresses::by_secret(world, object, of, DISPATCHER_SECRET)
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(channel) = world.in_memory_channels.get(key).filter(|channel| !channel.is_deleting()) else { return plan };
    let mut next = InMemoryChannel::clone(&channel);
    next.spec.subscribers = subscribers(world, &channel);
    if next.spec != channel.spec {
        // By itself, for a status written beside it would carry an old resourceVersion.
        plan.update(channel.as_ref(), next);
        return plan;
    }
    if is_in_doubt(world, channel.as_ref()) {
        return plan;
    }
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    report_subscribers(world, &mut next);
    plan.report(channel.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut InMemoryChannel, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    report_carried(world, next, now);
    let labels = map([("messaging.knative.dev/role", "in-memory-channel")]);
    let service = alias::settle(world, next, CHANNEL_SUFFIX, labels, DISPATCHER, plan).map_err(|why| {
        let text = format!("Channel Service failed: {why}");
        next.conditions(now).mark_false(CHANNEL_SERVICE_READY, "ChannelServiceFailed", &text);
        Stopped
    })?;
    next.conditions(now).mark_true(CHANNEL_SERVICE_READY);
    let delivery = next.spec.delivery.clone();
    let reason = "Unable to get the DeadLetterSink's URI";
    settle_dead_letters(world, next, delivery.as_ref(), now, reason, |next| &mut next.status.delivery)?;
    let host = destination::service_host(world, &Key::new(&world.settings.eventing_namespace, DISPATCHER));
    let place = Place {
        http: format!("http://{}", destination::service_host(world, &service)),
        https: format!("https://{host}/{}/{}", next.namespace(), next.name()),
        secret: DISPATCHER_SECRET,
    };
    addresses::settle(world, next, place, now, |next| &mut next.status.address)?;
    policies::report(world, next, now, |next| &mut next.status.policies);
    Ok(())
}

/// What the data plane makes of the channel: what takes its events is what delivers them.
fn report_carried(world: &World, next: &mut InMemoryChannel, now: Timestamp) {
    let is_carried = carried(world, next).is_some();
    for (type_, reason) in [
        (DISPATCHER_READY, "DispatcherNotReady"),
        (SERVICE_READY, "DispatcherServiceNotReady"),
        (ENDPOINTS_READY, "DispatcherEndpointsNotReady"),
    ] {
        if is_carried {
            next.conditions(now).mark_true(type_);
        } else {
            next.conditions(now).mark_unknown(type_, reason, "The channel's events are not taken yet.");
        }
    }
}

/// A subscriber is ready once no event passes it by; until then it stays as it was.
fn report_subscribers(world: &World, next: &mut InMemoryChannel) {
    let is_carried = is_carried(world, next);
    let statuses = next.spec.subscribers.iter().filter_map(|subscriber| {
        let ready = SubscriberStatus {
            uid: subscriber.uid.clone(),
            observed_generation: subscriber.generation,
            ready: "True".to_owned(),
            ..SubscriberStatus::default()
        };
        let before = next.status.subscribers.iter().find(|before| before.uid == subscriber.uid).cloned();
        if is_carried { Some(ready) } else { before }
    });
    next.status.subscribers = statuses.collect();
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, feature, status, unhappy};
    use super::*;
    use crate::check::{NOW, check_in, planned};

    const CHANNEL: &str = "apiVersion: messaging.knative.dev/v1\nkind: InMemoryChannel\nmetadata: {name: c}\n";
    const CARRIED: &[(Kind, &str)] = &[(Kind::InMemoryChannel, "c")];

    #[test]
    fn a_channel_gets_a_name_and_is_ready_once_its_events_are_taken() {
        let told = unhappy(&ROW, "default/c", &cluster(&[CHANNEL], &[]));
        let expected = expect![[r#"
            DispatcherReady=Unknown DispatcherNotReady The channel's events are not taken yet.
            EndpointsReady=Unknown DispatcherEndpointsNotReady The channel's events are not taken yet.
            Ready=Unknown DispatcherEndpointsNotReady The channel's events are not taken yet.
            ServiceReady=Unknown DispatcherServiceNotReady The channel's events are not taken yet.
        "#]];
        expected.assert_eq(&told);
        check_in(
            &ROW,
            "default/c",
            cluster(&[CHANNEL], CARRIED),
            expect![[r#"
                create Service default/c-kn-channel
                  labels messaging.knative.dev/role="in-memory-channel"
                  externalName "imc-dispatcher.knative-eventing.svc.cluster.local"
                  ports [{"name":"http","port":80,"protocol":"TCP"}]
                  type "ExternalName"
                status InMemoryChannel default/c
                  address {"name":"http","url":"http://c-kn-channel.default.svc.cluster.local"}
                  observedGeneration 1
                  Addressable=True
                  ChannelServiceReady=True
                  DeadLetterSinkResolved=True DeadLetterSinkNotConfigured No dead letter sink is configured.
                  DispatcherReady=True
                  EndpointsReady=True
                  EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
                  Ready=True
                  ServiceReady=True
            "#]],
        );
    }

    #[test]
    fn a_service_that_another_owns_is_told_and_one_that_strayed_is_put_right() {
        let service = |owner: &str, name: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: c-kn-channel{owner}}}\n\
                 spec: {{type: ExternalName, externalName: {name}, ports: [{{name: http, port: 80, protocol: TCP}}]}}\n"
            )
        };
        let foreign = service("", "x");
        let told = unhappy(&ROW, "default/c", &cluster(&[CHANNEL, &foreign], CARRIED));
        let text = "ChannelServiceFailed Channel Service failed: inmemorychannel: default/c does not own Service: \"c-kn-channel\"";
        assert!(told.contains(&format!("ChannelServiceReady=False {text}\n")), "{told}");
        assert!(told.contains(&format!("Ready=False {text}\n")), "{told}");

        let strayed = service(", owner: InMemoryChannel/c", "x");
        let plan = planned(&ROW, "default/c", &cluster(&[CHANNEL, &strayed], CARRIED));
        let crate::Want::Update(Object::CoreService(put)) = &plan.wants[0] else { panic!("{plan:?}") };
        let name = put.spec.as_ref().and_then(|spec| spec.external_name.as_deref());
        assert_eq!(name, Some("imc-dispatcher.knative-eventing.svc.cluster.local"));
    }

    #[test]
    fn dead_letters_of_the_channel_go_where_it_says() {
        let with = |uri: &str| format!("{CHANNEL}spec: {{delivery: {{deadLetterSink: {{uri: '{uri}'}}}}}}\n");
        let plan = planned(&ROW, "default/c", &cluster(&[&with("http://dls")], CARRIED));
        assert_eq!(status(&plan)["deadLetterSinkUri"], "http://dls");
        let told = unhappy(&ROW, "default/c", &cluster(&[&with("dls")], CARRIED));
        assert!(
            told.contains("DeadLetterSinkResolved=False Unable to get the DeadLetterSink's URI URI is not"),
            "{told}"
        );
    }

    #[test]
    fn encrypted_channels_are_told_apart_by_path() {
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: imc-dispatcher-server-tls, \
                      namespace: knative-eventing}\ndata: {ca.crt: UEVN}\n";
        let mut cluster = cluster(&[CHANNEL, secret], CARRIED);
        feature(&mut cluster, "transport-encryption", "permissive");
        feature(&mut cluster, "authentication-oidc", "enabled");
        let status = status(&planned(&ROW, "default/c", &cluster));
        assert_eq!(status["address"]["url"], "http://c-kn-channel.default.svc.cluster.local");
        let all = &status["addresses"];
        assert_eq!(all[0]["url"], "https://imc-dispatcher.knative-eventing.svc.cluster.local/default/c");
        assert_eq!(all[0]["CACerts"], "PEM");
        assert_eq!(all[1]["audience"], "messaging.knative.dev/inmemorychannel/default/c");
    }

    fn subscription(name: &str, spec: &str, status: &str) -> String {
        format!(
            "apiVersion: messaging.knative.dev/v1\nkind: Subscription\nmetadata: {{name: {name}}}\n\
             spec: {{channel: {{apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel, name: c}}, {spec}}}\n\
             status: {{observedGeneration: 1, conditions: [{{type: ReferencesResolved, status: 'True'}}], \
             physicalSubscription: {{{status}}}}}\n"
        )
    }

    #[test]
    fn subscribers_are_what_subscriptions_resolve_to() {
        let one =
            subscription("s1", "subscriber: {uri: 'http://one'}", "subscriberUri: 'http://one', replyUri: 'http://r'");
        let two = subscription(
            "s2",
            "delivery: {retry: 2, format: json}",
            "subscriberUri: 'http://two', deadLetterSinkUri: 'http://dls'",
        );
        let unresolved = subscription("s3", "delivery: {retry: 2}", "").replace("'True'", "'False'");
        let channel = format!("{CHANNEL}spec: {{delivery: {{retry: 5, backoffDelay: PT1S}}}}\n");
        check_in(
            &ROW,
            "default/c",
            cluster(&[&channel, &two, &one, &unresolved], CARRIED),
            expect![[r#"
                update InMemoryChannel default/c
                  spec/subscribers null -> [{"delivery":{"backoffDelay":"PT1S","retry":5},"generation":1,"name":"s1","replyUri":"http://r","subscriberUri":"http://one","uid":"uid-Subscription-s1"},{"delivery":{"deadLetterSink":{"uri":"http://dls"},"retry":2},"generation":1,"name":"s2","subscriberUri":"http://two","uid":"uid-Subscription-s2"}]
            "#]],
        );
    }

    #[test]
    fn a_subscriber_stays_until_its_subscription_goes() {
        let channel = format!(
            "{CHANNEL}spec:\n  subscribers:\n  - {{name: s1, uid: uid-Subscription-s1, generation: 1, subscriberUri: 'http://old'}}\n  \
             - {{name: gone, uid: x, subscriberUri: 'http://gone'}}\n  - {{uid: other, subscriberUri: 'http://by-hand'}}\n"
        );
        let unresolved = subscription("s1", "delivery: {}", "").replace("'True'", "'False'");
        let plan = planned(&ROW, "default/c", &cluster(&[&channel, &unresolved], CARRIED));
        let crate::Want::Update(Object::InMemoryChannel(next)) = &plan.wants[0] else { panic!("{plan:?}") };
        let uris: Vec<_> = next.spec.subscribers.iter().filter_map(|one| one.subscriber_uri.as_deref()).collect();
        assert_eq!(uris, ["http://old", "http://by-hand"]);
    }

    #[test]
    fn a_subscriber_is_ready_once_no_event_passes_it_by() {
        let one = subscription("s1", "subscriber: {uri: 'http://one'}", "subscriberUri: 'http://one'");
        let mut cluster = cluster(&[CHANNEL, &one], CARRIED);
        for want in &planned(&ROW, "default/c", &cluster).wants {
            cluster.carry_out(want, NOW);
        }
        let told =
            |cluster: &crate::check::Cluster| status(&planned(&ROW, "default/c", cluster))["subscribers"].clone();
        assert_eq!(told(&cluster), serde_json::Value::Null, "the data plane does not know of it");
        super::super::fixture::carry(&mut cluster, Kind::InMemoryChannel, "c");
        let ready = serde_json::json!([{"observedGeneration": 1, "ready": "True", "uid": "uid-Subscription-s1"}]);
        assert_eq!(told(&cluster), ready);
    }

    #[test]
    fn subscriptions_of_a_channel_are_those_of_the_channel_behind_it() {
        let outer = "apiVersion: messaging.knative.dev/v1\nkind: Channel\nmetadata: {name: c}\nstatus: {channel: {apiVersion: \
                     messaging.knative.dev/v1, kind: InMemoryChannel, name: c}}\n";
        let one =
            subscription("s1", "reply: {uri: 'http://r'}", "replyUri: 'http://r'").replace("kind: InMemory", "kind: ");
        let plan = planned(&ROW, "default/c", &cluster(&[CHANNEL, outer, &one], CARRIED));
        let crate::Want::Update(Object::InMemoryChannel(next)) = &plan.wants[0] else { panic!("{plan:?}") };
        assert_eq!(next.spec.subscribers[0].name.as_deref(), Some("s1"));
    }
}
