//! Brokers that are made by themselves: `default` for namespaces, and the one that a Trigger names, as `config-sugar`
//! chooses. What was made so is the user's from then on.

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    eventing::Broker,
    k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use crate::{Absence, EventType, Plan, Row, SystemConfig, World, children::map, kube::matches};

/// Label of Brokers that were made so.
const INJECTED: &str = "eventing.knative.dev/injected";
/// Name of a namespace's Broker.
const DEFAULT: &str = "default";

/// Namespaces.
pub(crate) const NAMESPACES: Row = Row {
    name: "namespace-sugar",
    of: Kind::Namespace,
    wakes: &[(Kind::Broker, by_default_broker)],
    configs: &[SystemConfig::Eventing("config-sugar")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan: plan_namespace,
};

/// Triggers.
pub(crate) const TRIGGERS: Row = Row {
    name: "trigger-sugar",
    of: Kind::Trigger,
    wakes: &[(Kind::Broker, by_gone_broker)],
    configs: &[SystemConfig::Eventing("config-sugar")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan: plan_trigger,
};

fn by_default_broker(_: &World, object: &Object, _: Kind) -> Vec<Key> {
    let key = object.key();
    if key.name == DEFAULT { vec![Key::new("", key.namespace)] } else { Vec::new() }
}

/// Triggers of a Broker that is not there.
fn by_gone_broker(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    let key = object.key();
    if world.brokers.contains(&key) { Vec::new() } else { world.leading_to(of, Kind::Broker, &key) }
}

fn is_chosen<R: Resource>(selector: Option<&LabelSelector>, object: &R) -> bool {
    !object.is_deleting() && selector.is_some_and(|selector| matches(selector, object.meta().labels.as_ref()))
}

fn plan_namespace(world: &World, key: &Key, _: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let namespace = world.namespaces.get(key);
    let selector = world.eventing.sugar.namespace_selector.as_ref();
    let Some(namespace) = namespace.filter(|namespace| is_chosen(selector, &**namespace)) else { return plan };
    let broker = Key::new(namespace.name(), DEFAULT);
    if !world.brokers.contains(&broker) {
        plan.create(injected(broker));
        plan.event(&*namespace, EventType::Normal, "BrokerCreated", "Default eventing.knative.dev Broker created.");
    }
    plan
}

fn plan_trigger(world: &World, key: &Key, _: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let selector = world.eventing.sugar.trigger_selector.as_ref();
    let trigger = world.triggers.get(key).filter(|trigger| is_chosen(selector, &**trigger));
    let Some(trigger) = trigger.filter(|trigger| !trigger.spec.broker.is_empty()) else { return plan };
    let broker = trigger.key().sibling(trigger.spec.broker.clone());
    if !world.brokers.contains(&broker) {
        let text = format!("Default eventing.knative.dev Broker {:?} created.", broker.name);
        plan.create(injected(broker));
        plan.event(&*trigger, EventType::Normal, "BrokerCreated", text);
    }
    plan
}

fn injected(key: Key) -> Broker {
    let metadata = ObjectMeta {
        name: Some(key.name),
        namespace: Some(key.namespace),
        labels: Some(map([(INJECTED, "true")])),
        ..ObjectMeta::default()
    };
    Broker { metadata, ..Broker::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::expect;
    use knoll_api::config::{Data, eventing::SugarConfig};

    use super::super::fixture::cluster;
    use super::*;
    use crate::check::{Cluster, check_in};

    const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: ns, labels: {team: a}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: t, labels: {team: a}}
spec: {broker: mine}
"#;

    fn chosen(key: &str, selector: &str) -> Cluster {
        let mut cluster = cluster(&[OBJECTS], &[]);
        let mut bundle = cluster.world.eventing.as_ref().clone();
        let data = Data::from([(key.to_owned(), selector.to_owned())]);
        bundle.sugar = SugarConfig::parse(&data).expect("a selector");
        cluster.world.eventing = Arc::new(bundle);
        cluster
    }

    #[test]
    fn a_namespace_that_is_chosen_gets_a_broker() {
        for (selector, expected) in [
            (
                "matchLabels: {team: a}",
                expect![[r#"
                    create Broker ns/default
                      labels eventing.knative.dev/injected="true"
                    note BrokerCreated: Default eventing.knative.dev Broker created.
                "#]],
            ),
            ("matchLabels: {team: b}", expect![[""]]),
            ("", expect![[""]]),
        ] {
            check_in(&NAMESPACES, "/ns", chosen("namespace-selector", selector), expected);
        }
        let mut there = chosen("namespace-selector", "{}");
        there.add("apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: default, namespace: ns}\n");
        check_in(&NAMESPACES, "/ns", there, expect![[""]]);
    }

    #[test]
    fn a_trigger_that_is_chosen_gets_the_broker_it_names() {
        check_in(
            &TRIGGERS,
            "default/t",
            chosen("trigger-selector", "{}"),
            expect![[r#"
                create Broker default/mine
                  labels eventing.knative.dev/injected="true"
                note BrokerCreated: Default eventing.knative.dev Broker "mine" created.
            "#]],
        );
        check_in(&TRIGGERS, "default/t", chosen("trigger-selector", ""), expect![[""]]);
    }
}
