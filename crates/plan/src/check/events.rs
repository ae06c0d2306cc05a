//! Eventing's controllers together, over one cluster with a data plane that carries out what it is to.

use knoll_api::{Key, Kind, Object, conditions::READY};
use serde_json::json;

use super::{NOW, platform::Platform};
use crate::{Change, Rows, Settings, World, rows};

const CONFIG: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config-br-default-channel, namespace: knative-eventing}
data: {channel-template-spec: "{apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}"}
---
apiVersion: v1
kind: Service
metadata: {name: app}
"#;
const BROKER: &str = r#"
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, annotations: {eventing.knative.dev/broker.class: MTChannelBasedBroker}}
spec: {config: {apiVersion: v1, kind: ConfigMap, name: config-br-default-channel, namespace: knative-eventing}}
"#;
const TRIGGER: &str = r#"
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: t}
spec: {broker: b, subscriber: {ref: {apiVersion: v1, kind: Service, name: app}}}
"#;
const SEQUENCE: &str = r#"
apiVersion: flows.knative.dev/v1
kind: Sequence
metadata: {name: s}
spec:
  channelTemplate: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}
  steps: [{ref: {apiVersion: v1, kind: Service, name: app}}, {uri: 'http://two'}]
  reply: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}}
"#;
const PARALLEL: &str = r#"
apiVersion: flows.knative.dev/v1
kind: Parallel
metadata: {name: p}
spec:
  channelTemplate: {apiVersion: messaging.knative.dev/v1, kind: Channel, spec: {channelTemplate: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}}}
  branches: [{subscriber: {uri: 'http://one'}}, {filter: {uri: 'http://f'}, subscriber: {uri: 'http://two'}}]
"#;

/// Condition `Ready` of an object, and what it says.
fn ready(platform: &Platform, kind: Kind, name: &str) -> String {
    let object = platform.cluster.world.object(kind, &Key::new("default", name)).expect("it is there").to_json();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.into_iter().find(|condition| condition["type"] == READY).expect("a ready condition");
    let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", text("status"), text("reason"), text("message")).trim_end().to_owned()
}

fn platform(fixtures: &[&str], seed: u64) -> Platform {
    let mut platform = Platform::with(Settings::default(), seed);
    fixtures.iter().for_each(|fixture| platform.add(fixture));
    platform
}

#[test]
fn what_users_write_becomes_ready_in_any_order() {
    let fixtures = [CONFIG, BROKER, TRIGGER, SEQUENCE, PARALLEL];
    for seed in [0, 7, 11] {
        for turn in 0..fixtures.len() {
            let mut turned = fixtures;
            turned.rotate_left(turn);
            let platform = platform(&turned, seed);
            for (kind, name) in
                [(Kind::Broker, "b"), (Kind::Trigger, "t"), (Kind::Sequence, "s"), (Kind::Parallel, "p")]
            {
                assert_eq!(ready(&platform, kind, name), "True", "{kind:?}, turn {turn}, seed {seed}");
            }
        }
    }
}

#[test]
fn a_trigger_follows_its_broker_and_its_subscriber() {
    let mut platform = platform(&[CONFIG, BROKER, TRIGGER], 0);
    let (app, broker) = (Key::new("default", "app"), Key::new("default", "b"));
    platform.cluster.delete(Kind::CoreService, &app);
    platform.settle();
    let text = "False Unable to get the Subscriber's URI failed to get object default/app: services \"app\" not found";
    assert_eq!(ready(&platform, Kind::Trigger, "t"), text);
    platform.add(CONFIG);
    assert_eq!(ready(&platform, Kind::Trigger, "t"), "True");
    platform.cluster.delete(Kind::Broker, &broker);
    platform.settle();
    assert_eq!(ready(&platform, Kind::Trigger, "t"), "False BrokerDoesNotExist Broker \"b\" does not exist");
}

#[test]
fn a_subscription_that_goes_leaves_its_channel() {
    let mut platform = platform(&[CONFIG, SEQUENCE, BROKER], 0);
    let first = Key::new("default", "s-kn-sequence-0");
    let subscribed = |platform: &Platform| {
        let channel = platform.cluster.world.in_memory_channels.get(&first).expect("a channel");
        (channel.spec.subscribers.len(), channel.status.subscribers.len())
    };
    assert_eq!(subscribed(&platform), (1, 1));
    platform.edit(Kind::Sequence, "s", |value| value["spec"]["steps"][0] = json!({"uri": "http://other"}));
    let channel = platform.cluster.world.in_memory_channels.get(&first).expect("a channel");
    assert_eq!(channel.spec.subscribers[0].subscriber_uri.as_deref(), Some("http://other"));
    platform.cluster.delete(Kind::Sequence, &Key::new("default", "s"));
    platform.settle();
    assert!(!platform.cluster.world.in_memory_channels.contains(&first), "its channels go with it");
}

/// A World of a Broker with as many Triggers, each ready, and the rows that plan over it.
fn broker_of(triggers: usize) -> (World, Rows) {
    let platform = platform(&[CONFIG, BROKER, TRIGGER], 0);
    let mut world = platform.cluster.world.clone();
    let trigger = world.object(Kind::Trigger, &Key::new("default", "t")).expect("a Trigger").to_json();
    for at in 0..triggers {
        let text = trigger.to_string().replace("\"t\"", &format!("\"t{at:04}\""));
        let one = serde_json::from_str(&text).expect("JSON");
        world.apply(Change::Put(Object::from_json(Kind::Trigger, one).expect("a Trigger")));
    }
    (world, rows(&Settings::default()))
}

#[test]
fn what_an_event_costs_does_not_grow_with_the_triggers_of_a_broker() {
    let cost = |triggers: usize| {
        let (mut world, rows) = broker_of(triggers);
        let mut value = world.object(Kind::Trigger, &Key::new("default", "t0007")).expect("one").to_json();
        value["spec"]["filter"] = json!({"attributes": {"type": "x"}});
        let before = world.visits();
        let mut keys = 0;
        for changed in world.apply(Change::Put(Object::from_json(Kind::Trigger, value).expect("a Trigger"))) {
            let woken = rows.woken(&world, &changed);
            assert!(woken.all.is_empty());
            keys += woken.keys.len();
            for (row, key) in woken.keys {
                (rows.all()[row].plan)(&world, &key, NOW);
            }
        }
        (keys, world.visits() - before)
    };
    let (few, many) = (cost(10), cost(1_000));
    assert_eq!(few, many);
    assert!(many.0 <= 5 && many.1 <= 40, "{many:?}");
}
