//! Broker of class `MTChannelBasedBroker`: where it takes events, and whether it does.
//!
//! Upstream puts a channel behind each Broker and a Subscription behind each Trigger. Here the Broker's events are in the
//! log and its Triggers read them there, so neither is made. The configuration that names the channel is read all the
//! same: only what is as durable as the log may be asked for.

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    config::eventing::channel_template,
    eventing::{
        Broker,
        services::{BROKER_INGRESS as INGRESS, BROKER_INGRESS_SECRET as INGRESS_SECRET},
    },
    labels::eventing::BROKER_CLASS,
};

use super::{
    Stopped,
    addresses::{self, Place},
    carried, destination, policies, settle_dead_letters,
    terms::is_decidable,
};
use crate::{Absence, Mapper, Plan, Row, SystemConfig, World, status::Reporting};

/// The class.
pub(super) const CLASS: &str = "MTChannelBasedBroker";
const INGRESS_READY: &str = "IngressReady";
const TRIGGER_CHANNEL_READY: &str = "TriggerChannelReady";
const FILTER_READY: &str = "FilterReady";

const WAKES: [(Kind, Mapper); 16] = destination::wakes([
    (Kind::ConfigMap, destination::by_reference),
    (Kind::EventPolicy, policies::by_policy),
    (Kind::Secret, by_certificate),
]);

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "broker",
    of: Kind::Broker,
    wakes: &WAKES,
    configs: &[SystemConfig::Eventing("config-features"), SystemConfig::Eventing("config-kreference-mapping")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

fn by_certificate(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    addresses::by_secret(world, object, of, INGRESS_SECRET)
}

/// Whether a Broker is of the class that is served here.
pub(super) fn is_ours(broker: &Broker) -> bool {
    broker.annotation(BROKER_CLASS) == Some(CLASS)
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(broker) = world.brokers.get(key).filter(|broker| is_ours(broker)) else { return plan };
    if !is_decidable(world, broker.as_ref()) {
        return plan;
    }
    let mut next = Broker::clone(&broker);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, now).unwrap_or(());
    plan.report(broker.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut Broker, now: Timestamp) -> Result<(), Stopped> {
    check_channel(world, next).map_err(|(reason, why)| {
        next.conditions(now).mark_false(TRIGGER_CHANNEL_READY, reason, &why);
        Stopped
    })?;
    report_carried(world, next, now);
    let delivery = next.spec.delivery.clone();
    let reason = "Unable to get the dead letter sink's URI";
    settle_dead_letters(world, next, delivery.as_ref(), now, reason, |next| &mut next.status.delivery)?;
    addresses::settle(world, next, place(world, next), now, |next| &mut next.status.address)?;
    policies::report(world, next, now, |next| &mut next.status.policies);
    Ok(())
}

/// What the data plane makes of the Broker: the log that its Triggers read, the way in and the way out are one.
fn report_carried(world: &World, next: &mut Broker, now: Timestamp) {
    let parts = [
        (TRIGGER_CHANNEL_READY, "ChannelNotReady", "The log of the Broker has not been opened yet."),
        (FILTER_READY, "FilterNotReady", "Delivery to Triggers of the Broker has not begun yet."),
        (INGRESS_READY, "IngressNotReady", "The Broker's events are not taken yet."),
    ];
    let is_carried = carried(world, next).is_some();
    for (type_, reason, text) in parts {
        if is_carried {
            next.conditions(now).mark_true(type_);
        } else {
            next.conditions(now).mark_unknown(type_, reason, text);
        }
    }
}

/// Checks that the channel which the Broker's configuration asks for is one that the log can stand for.
fn check_channel(world: &World, broker: &Broker) -> Result<(), (&'static str, String)> {
    let failed = |why: &str| ("ChannelTemplateFailed", format!("Error on setting up the ChannelTemplate: {why}"));
    let config = broker.spec.config.as_ref().ok_or_else(|| failed("failed to find channelTemplate"))?;
    if config.kind != "ConfigMap" {
        let why = "Broker.Spec.Config configuration not supported, only [kind: ConfigMap, apiVersion: v1]";
        return Err(failed(why));
    }
    if config.namespace.is_empty() || config.name.is_empty() {
        return Err(failed("Broker.Spec.Config name and namespace are required"));
    }
    let map = world.config_maps.get(&Key::new(&config.namespace, &config.name));
    let map = map.ok_or_else(|| failed(&format!("configmap {:?} not found", config.name)))?;
    let template = channel_template(map.data.as_ref().unwrap_or(&Default::default()));
    let template = template.map_err(|error| failed(&error.to_string()))?;
    let kind = Kind::from_api(&template.api_version, &template.kind);
    if kind != Some(Kind::InMemoryChannel) {
        let why = format!(
            "no channel of kind {} ({}) is served here; let channel-template-spec of ConfigMap {}/{} name InMemoryChannel",
            template.kind, template.api_version, config.namespace, config.name
        );
        return Err(("ChannelFailure", why));
    }
    Ok(())
}

/// Where the Broker takes events: all of them in one place, told apart by path.
fn place(world: &World, broker: &Broker) -> Place {
    let host = destination::service_host(world, &Key::new(&world.settings.eventing_namespace, INGRESS));
    let path = format!("{}/{}", broker.namespace(), broker.name());
    Place { http: format!("http://{host}/{path}"), https: format!("https://{host}/{path}"), secret: INGRESS_SECRET }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{CONFIG, cluster, feature, unhappy};
    use super::*;
    use crate::check::check_in;

    const BROKER: &str = r#"
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, annotations: {eventing.knative.dev/broker.class: MTChannelBasedBroker}}
spec:
  config: {apiVersion: v1, kind: ConfigMap, name: config-br-default-channel, namespace: knative-eventing}
"#;
    const DEAD_LETTERS: &str = r#"
  delivery: {retry: 3, deadLetterSink: {ref: {apiVersion: v1, kind: Service, name: dls}}}
---
apiVersion: v1
kind: Service
metadata: {name: dls}
"#;

    #[test]
    fn a_broker_is_ready_once_its_events_are_taken() {
        let broker = format!("{BROKER}{DEAD_LETTERS}");
        check_in(
            &ROW,
            "default/b",
            cluster(&[&broker], &[]),
            expect![[r#"
                status Broker default/b
                  address {"name":"http","url":"http://broker-ingress.knative-eventing.svc.cluster.local/default/b"}
                  deadLetterSinkUri "http://dls.default.svc.cluster.local"
                  observedGeneration 1
                  Addressable=True
                  DeadLetterSinkResolved=True
                  EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
                  FilterReady=Unknown FilterNotReady Delivery to Triggers of the Broker has not begun yet.
                  IngressReady=Unknown IngressNotReady The Broker's events are not taken yet.
                  Ready=Unknown IngressNotReady The Broker's events are not taken yet.
                  TriggerChannelReady=Unknown ChannelNotReady The log of the Broker has not been opened yet.
            "#]],
        );
        check_in(
            &ROW,
            "default/b",
            cluster(&[BROKER], &[(Kind::Broker, "b")]),
            expect![[r#"
                status Broker default/b
                  address {"name":"http","url":"http://broker-ingress.knative-eventing.svc.cluster.local/default/b"}
                  observedGeneration 1
                  Addressable=True
                  DeadLetterSinkResolved=True DeadLetterSinkNotConfigured No dead letter sink is configured.
                  EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
                  FilterReady=True
                  IngressReady=True
                  Ready=True
                  TriggerChannelReady=True
            "#]],
        );
    }

    #[test]
    fn brokers_of_other_classes_and_those_that_go_are_left_alone() {
        let other = BROKER.replace("MTChannelBasedBroker", "Kafka");
        let going = BROKER.replace("metadata: {", "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', ");
        for broker in [other, going] {
            check_in(&ROW, "default/b", cluster(&[&broker], &[]), expect![[""]]);
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_carried_out_is_told_by_what_is_wrong() {
        let cases = [
            ("config-br-default-channel", "gone", "ChannelTemplateFailed", "configmap \"gone\" not found"),
            ("kind: ConfigMap", "kind: Secret", "ChannelTemplateFailed", "only [kind: ConfigMap, apiVersion: v1]"),
            (", namespace: knative-eventing", "", "ChannelTemplateFailed", "name and namespace are required"),
            ("config-br-default-channel", "kafka", "ChannelFailure", "no channel of kind KafkaChannel"),
            ("config-br-default-channel", "empty", "ChannelTemplateFailed", "missing (or empty) key"),
        ];
        for (from, to, reason, text) in cases {
            let told = unhappy(&ROW, "default/b", &cluster(&[&BROKER.replace(from, to)], &[(Kind::Broker, "b")]));
            assert!(told.contains(&format!("TriggerChannelReady=False {reason}")) && told.contains(text), "{told}");
            assert!(told.contains(&format!("Ready=False {reason}")), "{told}");
        }
        let nothing = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: b, annotations: \
                       {eventing.knative.dev/broker.class: MTChannelBasedBroker}}\n";
        let told = unhappy(&ROW, "default/b", &cluster(&[nothing], &[]));
        assert!(told.contains("Error on setting up the ChannelTemplate: failed to find channelTemplate"), "{told}");
        assert!(CONFIG.contains("KafkaChannel"));
    }

    #[test]
    fn a_dead_letter_sink_without_an_address_keeps_the_broker_from_being_ready() {
        let broker =
            format!("{BROKER}  delivery: {{deadLetterSink: {{ref: {{apiVersion: v1, kind: Service, name: x}}}}}}");
        let told = unhappy(&ROW, "default/b", &cluster(&[&broker], &[(Kind::Broker, "b")]));
        let expected = expect![[r#"
            Addressable=Unknown
            DeadLetterSinkResolved=False Unable to get the dead letter sink's URI failed to get object default/x: services "x" not found
            EventPoliciesReady=Unknown
            Ready=False Unable to get the dead letter sink's URI failed to get object default/x: services "x" not found
        "#]];
        expected.assert_eq(&told);
    }

    #[test]
    fn what_carries_another_broker_of_the_name_does_not_count() {
        let mut world = cluster(&[BROKER], &[(Kind::Broker, "b")]);
        world.edit(Kind::Broker, &Key::new("default", "b"), |value| value["metadata"]["uid"] = "another".into());
        assert!(unhappy(&ROW, "default/b", &world).contains("IngressReady=Unknown"));
    }

    #[test]
    fn addresses_follow_transport_encryption_and_audiences_authentication() {
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: mt-broker-ingress-server-tls, \
                      namespace: knative-eventing}\ndata: {ca.crt: UEVN}\n";
        let address = |fixtures: &[&str], features: &[(&str, &str)]| {
            let mut cluster = cluster(fixtures, &[(Kind::Broker, "b")]);
            features.iter().for_each(|(key, value)| feature(&mut cluster, key, value));
            let plan = crate::check::planned(&ROW, "default/b", &cluster);
            let status = super::super::fixture::status(&plan);
            (status["address"].to_string(), status["addresses"].to_string())
        };
        let (one, all) = address(&[BROKER, secret], &[("transport-encryption", "permissive")]);
        expect![[r#"{"name":"http","url":"http://broker-ingress.knative-eventing.svc.cluster.local/default/b"}"#]]
            .assert_eq(&one);
        expect![[r#"[{"CACerts":"PEM","name":"https","url":"https://broker-ingress.knative-eventing.svc.cluster.local/default/b"},{"name":"http","url":"http://broker-ingress.knative-eventing.svc.cluster.local/default/b"}]"#]]
            .assert_eq(&all);
        let features = [("transport-encryption", "strict"), ("authentication-oidc", "enabled")];
        let (one, all) = address(&[BROKER, secret], &features);
        expect![[r#"{"CACerts":"PEM","audience":"eventing.knative.dev/broker/default/b","name":"https","url":"https://broker-ingress.knative-eventing.svc.cluster.local/default/b"}"#]]
            .assert_eq(&one);
        assert_eq!(all, format!("[{one}]"));

        let mut without = cluster(&[BROKER], &[(Kind::Broker, "b")]);
        feature(&mut without, "transport-encryption", "strict");
        let told = unhappy(&ROW, "default/b", &without);
        assert!(
            told.contains("Addressable=Unknown CACertsNotAvailable failed to get CA certs from knative-eventing/mt"),
            "{told}"
        );
    }

    #[test]
    fn event_policies_are_listed_when_they_are_ready_and_count_when_they_are_not() {
        let policy = |name: &str, spec: &str, ready: &str| {
            format!(
                "apiVersion: eventing.knative.dev/v1alpha1\nkind: EventPolicy\nmetadata: {{name: {name}}}\n\
                 spec: {{{spec}}}\nstatus: {{conditions: [{{type: Ready, status: '{ready}'}}]}}\n"
            )
        };
        let named = "to: [{ref: {apiVersion: eventing.knative.dev/v9, kind: broker, name: B}}]";
        let picked = "to: [{selector: {apiVersion: eventing.knative.dev/v1, kind: Broker, matchLabels: {team: a}}}]";
        let other = "to: [{ref: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: b}}]";
        let told = |policies: &[String]| {
            let broker = BROKER.replace("metadata: {", "metadata: {labels: {team: a}, ");
            let fixtures: Vec<&str> = policies.iter().map(String::as_str).chain([broker.as_str()]).collect();
            let mut cluster = cluster(&fixtures, &[(Kind::Broker, "b")]);
            feature(&mut cluster, "authentication-oidc", "enabled");
            let plan = crate::check::planned(&ROW, "default/b", &cluster);
            let status = super::super::fixture::status(&plan);
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.into_iter().find(|c| c["type"] == "EventPoliciesReady").expect("it is there");
            let names: Vec<String> =
                status["policies"].as_array().into_iter().flatten().map(|p| p["name"].to_string()).collect();
            format!("{} {} {} {}", names.join(","), found["status"], found["reason"], found["message"])
        };
        for (policies, expected) in [
            (vec![], r#" "True" "DefaultAuthorizationMode" "Default authz mode is \"allow-same-namespace\"""#),
            (
                vec![policy("x", other, "False")],
                r#" "True" "DefaultAuthorizationMode" "Default authz mode is \"allow-same-namespace\"""#,
            ),
            (
                vec![policy("c", named, "True"), policy("a", picked, "True"), policy("d", "", "True")],
                r#""a","c","d" "True" null null"#,
            ),
            (
                vec![policy("c", named, "True"), policy("a", picked, "False")],
                r#""c" "False" "EventPoliciesNotReady" "event policies a are not ready""#,
            ),
        ] {
            assert_eq!(told(&policies), expected);
        }
    }
}
