//! Trigger: who gets which events of a Broker, and whether they reach them.
//!
//! Upstream makes a Subscription for each Trigger. Here the data plane reads the Trigger itself: it is subscribed once the
//! data plane carries it out, for then no later event of the Broker passes it by.

use std::sync::Arc;

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    conditions::READY,
    duck::{DeliveryStatus, KReference},
    eventing::{Broker, Trigger},
    labels::eventing::DEPENDENCY,
    status::{Condition, DuckStatus},
};

use super::{
    DEAD_LETTER_SINK_RESOLVED, Stopped, broker, dead_letter_sink, destination, follow, identity, is_carried,
    settle_dead_letters,
    terms::{duck_of, is_decidable, key_of, kind_of},
};
use crate::{
    Absence, DuckKind, Mapper, Plan, Row, SystemConfig, World, by_controller, ducks::Lookup, status::Reporting,
};

const BROKER_READY: &str = "BrokerReady";
const SUBSCRIBER_RESOLVED: &str = "SubscriberResolved";
const SUBSCRIPTION_READY: &str = "SubscriptionReady";
const DEPENDENCY_READY: &str = "DependencyReady";

const WAKES: [(Kind, Mapper); 19] = destination::wakes([
    (Kind::ServiceAccount, by_controller),
    (Kind::ApiServerSource, destination::by_reference),
    (Kind::ContainerSource, destination::by_reference),
    (Kind::PingSource, destination::by_reference),
    (Kind::SinkBinding, destination::by_reference),
    (Kind::IntegrationSource, destination::by_reference),
]);

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "trigger",
    of: Kind::Trigger,
    wakes: &WAKES,
    configs: &[SystemConfig::Eventing("config-features"), SystemConfig::Eventing("config-kreference-mapping")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

/// Key of the Broker that a Trigger names.
pub fn broker_of(world: &World, trigger: &Trigger) -> Key {
    let elsewhere = trigger.spec.broker_ref.as_ref();
    match elsewhere.filter(|_| world.eventing.features.cross_namespace_event_links.is_enabled()) {
        Some(broker) => key_of(broker, trigger.namespace()),
        None => trigger.key().sibling(trigger.spec.broker.clone()),
    }
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(trigger) = world.triggers.get(key).filter(|trigger| is_decidable(world, trigger.as_ref())) else {
        return plan;
    };
    let broker_key = broker_of(world, &trigger);
    let broker = world.brokers.get(&broker_key);
    if broker.as_ref().is_some_and(|broker| !broker::is_ours(broker)) {
        return plan;
    }
    let mut next = Trigger::clone(&trigger);
    next.conditions(now).initialize();
    identity::not_supported(&mut next, now);
    match broker {
        None => {
            let text = format!("Broker {:?} does not exist", broker_key.name);
            next.conditions(now).mark_false(BROKER_READY, "BrokerDoesNotExist", &text);
        }
        // A stop is a result like any other here: what there is to say is in the status.
        Some(broker) => reconcile(world, &broker, &mut next, &mut plan, now).unwrap_or(()),
    }
    plan.report(trigger.as_ref(), next);
    plan
}

fn reconcile(
    world: &World,
    broker: &Arc<Broker>,
    next: &mut Trigger,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<(), Stopped> {
    let unknown = ("BrokerNotConfigured", "Broker has not yet been reconciled.");
    follow(next, BROKER_READY, broker.condition(READY), unknown, now);
    if !broker.is_ready() {
        return Err(Stopped);
    }
    resolve_subscriber(world, next, now)?;
    resolve_dead_letter_sink(world, broker, next, now)?;
    identity::settle(world, next, plan, now, |next| &mut next.status.auth)?;
    if is_carried(world, next) {
        next.conditions(now).mark_true(SUBSCRIPTION_READY);
    } else {
        let text = "Subscription has not yet been reconciled.";
        next.conditions(now).mark_unknown(SUBSCRIPTION_READY, "SubscriptionNotConfigured", text);
    }
    check_dependency(world, next, now);
    Ok(())
}

fn resolve_subscriber(world: &World, next: &mut Trigger, now: Timestamp) -> Result<(), Stopped> {
    let resolved = destination::resolve(world, &next.spec.subscriber, next.namespace());
    let status = &mut next.status;
    let found = resolved.as_ref().ok().cloned().unwrap_or_default();
    (status.subscriber_uri, status.subscriber_ca_certs) = (found.url, found.ca_certs);
    status.subscriber_audience = found.audience;
    match resolved {
        Ok(_) => next.conditions(now).mark_true(SUBSCRIBER_RESOLVED),
        Err(why) => {
            next.conditions(now).mark_false(SUBSCRIBER_RESOLVED, "Unable to get the Subscriber's URI", &why);
            return Err(Stopped);
        }
    };
    Ok(())
}

/// The Trigger's own dead letter sink, else the Broker's.
fn resolve_dead_letter_sink(world: &World, broker: &Broker, next: &mut Trigger, now: Timestamp) -> Result<(), Stopped> {
    let own = next.spec.delivery.clone();
    let inherited =
        dead_letter_sink(own.as_ref()).is_none() && dead_letter_sink(broker.spec.delivery.as_ref()).is_some();
    if !inherited {
        let reason = "Unable to get the dead letter sink's URI";
        return settle_dead_letters(world, next, own.as_ref(), now, reason, |next| &mut next.status.delivery);
    }
    next.status.delivery = broker.status.delivery.clone();
    if next.status.delivery == DeliveryStatus::default() {
        let reason = format!("Broker {} didn't set status.deadLetterSinkURI", broker.name());
        next.conditions(now).mark_false(DEAD_LETTER_SINK_RESOLVED, &reason, "");
        return Err(Stopped);
    }
    next.conditions(now).mark_true(DEAD_LETTER_SINK_RESOLVED);
    Ok(())
}

/// Says how the object stands that the Trigger waits for.
fn check_dependency(world: &World, next: &mut Trigger, now: Timestamp) {
    let Some(text) = next.annotation(DEPENDENCY).map(str::to_owned) else {
        next.conditions(now).mark_true(DEPENDENCY_READY);
        return;
    };
    let reference: KReference = match serde_json::from_str(&text) {
        Ok(reference) => reference,
        Err(error) => {
            let text = format!("Unable to unmarshal objectReference from dependency annotation of trigger: {error}");
            next.conditions(now).mark_false(DEPENDENCY_READY, "ReferenceError", &text);
            return;
        }
    };
    // It is sought in the Trigger's namespace, whatever it says.
    let key = next.key().sibling(reference.name.clone());
    let known = |kind: &Kind| {
        WAKES.iter().any(|(on, _)| on == kind) && ![Kind::CoreService, Kind::ServiceAccount].contains(kind)
    };
    let found = match (kind_of(&reference).filter(known), duck_of(&reference)) {
        (Some(kind), _) => dependency(world, kind, &key),
        (None, Some(kind)) => duck_dependency(world, &kind, &key),
        (None, None) => Err(None),
    };
    let Dependency { generations: (generation, observed), ready } = match found {
        Ok(found) => found,
        Err(None) => {
            let (api_version, kind) = (&reference.api_version, &reference.kind);
            let text = format!("Failed to retrieve lister: nothing of kind {kind} ({api_version}) can be waited for");
            next.conditions(now).mark_unknown(DEPENDENCY_READY, "ListerDoesNotExist", &text);
            return;
        }
        Err(Some(missing)) => {
            let text = format!("Dependency does not exist: {missing}");
            next.conditions(now).mark_false(DEPENDENCY_READY, "DependencyDoesNotExist", &text);
            return;
        }
    };
    if generation != observed {
        let text = format!(
            "The dependency's metadata.generation, \"{generation}\", is not equal to its \
             status.observedGeneration, \"{observed}\"."
        );
        next.conditions(now).mark_unknown(DEPENDENCY_READY, "GenerationNotEqual", &text);
        return;
    }
    let unknown = ("DependencyNotConfigured", "Dependency has not yet been reconciled.");
    follow(next, DEPENDENCY_READY, ready.as_ref(), unknown, now);
}

/// An object that a Trigger waits for.
struct Dependency {
    /// Its generation, and the one that its status speaks of.
    generations: (i64, i64),
    /// Whether it is ready, as it says.
    ready: Option<Condition>,
}

/// The object of this kind; what is missing where there is none.
fn dependency(world: &World, kind: Kind, key: &Key) -> Result<Dependency, Option<String>> {
    let object = world.object(kind, key).ok_or_else(|| Some(destination::not_found(kind, &key.name)))?;
    let status = common(&object);
    let generations = (object.meta().generation.unwrap_or_default(), status.observed_generation.unwrap_or_default());
    Ok(Dependency { generations, ready: knoll_api::conditions::find(&status.conditions, READY).cloned() })
}

/// The same of a kind that controllers do not know; nothing where the kind cannot be followed.
fn duck_dependency(world: &World, kind: &DuckKind, key: &Key) -> Result<Dependency, Option<String>> {
    match world.ducks.look_up(kind, key) {
        Lookup::Found(object) => Ok(Dependency { generations: object.generations, ready: object.ready.clone() }),
        Lookup::Missing => Err(Some(destination::duck_not_found(kind, &key.name))),
        Lookup::Unknown(_) => Err(None),
    }
}

/// The beginning of the status of an object that can be waited for; an empty one for others.
fn common(object: &Object) -> DuckStatus {
    match object {
        Object::Service(object) => object.status.common.clone(),
        Object::Route(object) => object.status.common.clone(),
        Object::DomainMapping(object) => object.status.common.clone(),
        Object::Broker(object) => object.status.common.clone(),
        Object::Channel(object) => object.status.channelable.common.clone(),
        Object::InMemoryChannel(object) => object.status.common.clone(),
        Object::Sequence(object) => object.status.common.clone(),
        Object::Parallel(object) => object.status.common.clone(),
        Object::EventTransform(object) => object.status.source.common.clone(),
        Object::RequestReply(object) => object.status.common.clone(),
        Object::JobSink(object) => object.status.common.clone(),
        Object::IntegrationSink(object) => object.status.common.clone(),
        Object::ApiServerSource(object) => object.status.source.common.clone(),
        Object::ContainerSource(object) => object.status.common.clone(),
        Object::PingSource(object) => object.status.common.clone(),
        Object::SinkBinding(object) => object.status.source.common.clone(),
        Object::IntegrationSource(object) => object.status.common.clone(),
        _ => DuckStatus::default(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, feature, status, unhappy};
    use super::*;
    use crate::check::{check_in, planned};

    const BROKER: &str = r#"
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, annotations: {eventing.knative.dev/broker.class: MTChannelBasedBroker}}
status: {observedGeneration: 1, conditions: [{type: Ready, status: "True"}]}
"#;
    const TRIGGER: &str = r#"
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: t}
spec: {broker: b, subscriber: {ref: {apiVersion: v1, kind: Service, name: app}, uri: /in}}
"#;
    const APP: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: app}\n";
    const CARRIED: &[(Kind, &str)] = &[(Kind::Trigger, "t")];

    #[test]
    fn a_trigger_is_ready_once_no_event_passes_it_by() {
        let told = unhappy(&ROW, "default/t", &cluster(&[BROKER, TRIGGER, APP], &[]));
        let expected = expect![[r#"
            Ready=Unknown SubscriptionNotConfigured Subscription has not yet been reconciled.
            SubscriptionReady=Unknown SubscriptionNotConfigured Subscription has not yet been reconciled.
        "#]];
        expected.assert_eq(&told);
        check_in(
            &ROW,
            "default/t",
            cluster(&[BROKER, TRIGGER, APP], CARRIED),
            expect![[r#"
                status Trigger default/t
                  observedGeneration 1
                  subscriberUri "http://app.default.svc.cluster.local/in"
                  BrokerReady=True
                  DeadLetterSinkResolved=True DeadLetterSinkNotConfigured No dead letter sink is configured.
                  DependencyReady=True
                  OIDCIdentityCreated=True authentication-oidc feature disabled
                  Ready=True
                  SubscriberResolved=True
                  SubscriptionReady=True
            "#]],
        );
    }

    #[test]
    fn a_trigger_says_what_of_its_broker_keeps_it_from_being_ready() {
        let with = |ready: &str| BROKER.replace(r#"status: "True""#, ready);
        for (broker, expected) in [
            (String::new(), "BrokerReady=False BrokerDoesNotExist Broker \"b\" does not exist\n"),
            (with("status: 'False', reason: R, message: m"), "BrokerReady=False R m\n"),
            (with("status: Unknown, reason: R, message: m"), "BrokerReady=Unknown R m\n"),
            (
                with("status: 'True'").replace("type: Ready", "type: Other"),
                "BrokerReady=Unknown BrokerNotConfigured Broker has not yet been reconciled.\n",
            ),
        ] {
            let fixtures: Vec<&str> =
                [broker.as_str(), TRIGGER, APP].into_iter().filter(|text| !text.is_empty()).collect();
            let told = unhappy(&ROW, "default/t", &cluster(&fixtures, CARRIED));
            assert!(told.starts_with(expected), "{told}");
            assert!(
                told.contains("SubscriberResolved=Unknown\n") && told.contains("DependencyReady=Unknown\n"),
                "{told}"
            );
        }
        let stale = BROKER.replace("observedGeneration: 1", "observedGeneration: 0");
        let told = unhappy(&ROW, "default/t", &cluster(&[&stale, TRIGGER, APP], CARRIED));
        assert!(told.contains("SubscriberResolved=Unknown") && !told.contains("BrokerReady"), "{told}");
        let foreign = BROKER.replace("MTChannelBasedBroker", "Kafka");
        check_in(&ROW, "default/t", cluster(&[&foreign, TRIGGER, APP], CARRIED), expect![[""]]);
    }

    #[test]
    fn a_subscriber_without_an_address_is_told_and_no_longer_shown() {
        let known = format!("{TRIGGER}status: {{subscriberUri: 'http://old'}}\n");
        let cluster = cluster(&[BROKER, &known], CARRIED);
        let text = "Unable to get the Subscriber's URI failed to get object default/app: services \"app\" not found";
        let told = unhappy(&ROW, "default/t", &cluster);
        assert!(told.contains(&format!("\nSubscriberResolved=False {text}\n")), "{told}");
        assert!(told.contains(&format!("Ready=False {text}\n")), "{told}");
        assert!(status(&planned(&ROW, "default/t", &cluster)).get("subscriberUri").is_none());
    }

    #[test]
    fn a_kind_that_is_not_served_for_a_moment_takes_no_address_away() {
        let known = format!(
            "{TRIGGER}status: {{subscriberUri: 'http://old', conditions: [{{type: Ready, status: 'True'}}]}}\n"
        );
        let mut cluster = cluster(&[BROKER, &known], CARRIED);
        cluster.world.observed.absent.insert(Kind::CoreService);
        assert!(planned(&ROW, "default/t", &cluster).is_empty());
        cluster.world.observed.absent = [Kind::Route].into();
        assert!(
            unhappy(&ROW, "default/t", &cluster).contains("SubscriberResolved=False"),
            "it is none of the Trigger's"
        );
    }

    #[test]
    fn dead_letters_go_where_the_trigger_says_else_where_the_broker_says() {
        let sink = |uri: &str| format!("delivery: {{deadLetterSink: {{uri: '{uri}'}}}}");
        let broker = |status: &str| {
            format!("{BROKER}spec: {{{}}}\n", sink("http://b")).replace("status: {", &format!("status: {{{status}"))
        };
        let trigger = |delivery: &str| TRIGGER.replace("broker: b,", &format!("broker: b, {delivery},"));
        let told = |fixtures: &[&str]| {
            let cluster = cluster(fixtures, CARRIED);
            let status = status(&planned(&ROW, "default/t", &cluster));
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.into_iter().find(|c| c["type"] == DEAD_LETTER_SINK_RESOLVED).expect("it is there");
            format!("{} {} {}", status["deadLetterSinkUri"], found["status"], found["reason"])
        };
        let resolved = broker("deadLetterSinkUri: 'http://resolved', ");
        for (fixtures, expected) in [
            ([BROKER, TRIGGER, APP], r#"null "True" "DeadLetterSinkNotConfigured""#),
            ([&resolved, TRIGGER, APP], r#""http://resolved" "True" null"#),
            ([&resolved, &trigger("delivery: {retry: 2}"), APP], r#""http://resolved" "True" null"#),
            ([&resolved, &trigger(&sink("http://t")), APP], r#""http://t" "True" null"#),
            ([&broker(""), TRIGGER, APP], r#"null "False" "Broker b didn't set status.deadLetterSinkURI""#),
            ([BROKER, &trigger(&sink("/t")), APP], r#"null "False" "Unable to get the dead letter sink's URI""#),
        ] {
            assert_eq!(told(&fixtures), expected);
        }
    }

    #[test]
    fn a_trigger_waits_for_what_its_annotation_names() {
        let source = |status: &str| {
            format!("apiVersion: sources.knative.dev/v1\nkind: PingSource\nmetadata: {{name: p}}\n{status}")
        };
        let ready = |status: &str| {
            source(&format!("status: {{observedGeneration: 1, conditions: [{{type: Ready, {status}}}]}}\n"))
        };
        let on = |reference: &str| {
            TRIGGER
                .replace("{name: t}", &format!("{{name: t, annotations: {{knative.dev/dependency: '{reference}'}}}}"))
        };
        let ping = r#"{"kind":"PingSource","name":"p","apiVersion":"sources.knative.dev/v1"}"#;
        for (trigger, source, expected) in [
            (
                on(ping),
                String::new(),
                "False DependencyDoesNotExist Dependency does not exist: pingsources.sources.knative.dev \"p\" not found",
            ),
            (
                on(ping),
                source(""),
                "Unknown GenerationNotEqual The dependency's metadata.generation, \"1\", is not equal to its status.observedGeneration, \"0\".",
            ),
            (
                on(ping),
                source("status: {observedGeneration: 1}\n"),
                "Unknown DependencyNotConfigured Dependency has not yet been reconciled.",
            ),
            (on(ping), ready("status: 'False', reason: R, message: m"), "False R m"),
            (on(ping), ready("status: Unknown, reason: R, message: m"), "Unknown R m"),
            (on(ping), ready("status: 'True'"), "True"),
            (
                on("x"),
                String::new(),
                "False ReferenceError Unable to unmarshal objectReference from dependency annotation of trigger: expected value at line 1 column 1",
            ),
            (
                on(r#"{"kind":"Pod","name":"p","apiVersion":"v1"}"#),
                String::new(),
                "Unknown ListerDoesNotExist Failed to retrieve lister: nothing of kind Pod (v1) can be waited for",
            ),
        ] {
            let fixtures: Vec<&str> =
                [BROKER, &trigger, APP, &source].into_iter().filter(|text| !text.is_empty()).collect();
            let cluster = cluster(&fixtures, CARRIED);
            let status = status(&planned(&ROW, "default/t", &cluster));
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.into_iter().find(|c| c["type"] == DEPENDENCY_READY).expect("it is there");
            let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
            assert_eq!(format!("{} {} {}", text("status"), text("reason"), text("message")).trim_end(), expected);
        }
    }

    #[test]
    fn senders_that_are_to_say_who_they_are_get_an_account() {
        let mut cluster = cluster(&[BROKER, TRIGGER, APP], CARRIED);
        feature(&mut cluster, "authentication-oidc", "enabled");
        let plan = planned(&ROW, "default/t", &cluster);
        let crate::Want::Create(Object::ServiceAccount(account)) = &plan.wants[0] else { panic!("{plan:?}") };
        assert_eq!(account.name(), "t-oidc-eventing.knative.dev-trigger");
        assert_eq!(account.label("eventing.knative.dev/oidc"), Some("enabled"));
        assert_eq!(status(&plan)["auth"]["serviceAccountName"], "t-oidc-eventing.knative.dev-trigger");
        // Off again, the account goes.
        plan.wants.iter().for_each(|want| cluster.carry_out(want, crate::check::NOW));
        feature(&mut cluster, "authentication-oidc", "disabled");
        let plan = planned(&ROW, "default/t", &cluster);
        assert!(matches!(plan.wants[0], crate::Want::Delete { kind: Kind::ServiceAccount, .. }), "{plan:?}");

        let taken = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: t-oidc-eventing.knative.dev-trigger}\n";
        let mut cluster = super::super::fixture::cluster(&[BROKER, TRIGGER, APP, taken], CARRIED);
        feature(&mut cluster, "authentication-oidc", "enabled");
        let told = unhappy(&ROW, "default/t", &cluster);
        let text = "Unable to resolve service account for OIDC authentication service account \
                    t-oidc-eventing.knative.dev-trigger not owned by Trigger t";
        assert!(told.contains(&format!("OIDCIdentityCreated=False {text}\n")), "{told}");
    }

    #[test]
    fn a_broker_of_another_namespace_counts_where_links_are_allowed() {
        let broker = BROKER.replace("{name: b,", "{name: b, namespace: other,");
        let trigger = TRIGGER.replace(
            "broker: b",
            "brokerRef: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b, namespace: other}",
        );
        let mut cluster = cluster(&[&broker, &trigger, APP], CARRIED);
        assert!(unhappy(&ROW, "default/t", &cluster).contains("Broker \"\" does not exist"));
        feature(&mut cluster, "cross-namespace-event-links", "enabled");
        assert_eq!(unhappy(&ROW, "default/t", &cluster), "");
    }
}
