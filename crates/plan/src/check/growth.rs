//! What an event costs does not depend on how many services there are, and a service at rest takes little room.

use std::collections::BTreeMap;

use knoll_api::{Key, Kind, Object};

use super::{NOW, chain::service, platform::Platform};
use crate::{Change, Rows, Settings, World, decider, rows, table::Routing};

/// Objects that one event may have plans read, however many there are.
const MOST: u64 = 300;
/// Keys that one event may have planned, however many there are.
const KEYS: usize = 30;
/// Packed bytes of the objects of one service.
const WEIGHT: usize = 9_000;
/// Services with a running pod.
const RUNNING: usize = 20;

/// The objects of one service once it is ready, as JSON text with `hello` for its name.
fn ready_service() -> Vec<(Kind, String)> {
    let mut platform = Platform::new();
    platform.add(&service("hello", "hello:1", "", "", ""));
    assert_eq!(platform.ready_of("hello"), "True");
    objects(&platform.cluster.world)
}

/// Every object, as JSON text.
fn objects(world: &World) -> Vec<(Kind, String)> {
    let mut objects = Vec::new();
    for kind in Kind::ALL {
        for key in world.keys(*kind) {
            let object = world.object(*kind, &key).expect("just listed");
            objects.push((*kind, object.to_json().to_string()));
        }
    }
    objects
}

/// A World with as many services, and the rows that plan over it.
fn world_of(services: usize) -> (World, Rows) {
    many(ready_service(), services)
}

/// A World with these objects so many times, each time under another name, and the rows that plan over it.
fn many(objects: Vec<(Kind, String)>, services: usize) -> (World, Rows) {
    let settings = Settings::default();
    let (mut world, rows) = (World::new(settings.clone()), rows(&settings));
    for (kind, text) in objects {
        let shared = !text.contains("hello");
        for at in 0..if shared { 1 } else { services } {
            if kind == Kind::Pod && at >= RUNNING {
                break;
            }
            let text = text.replace("hello", &name(at));
            let object = Object::from_json(kind, serde_json::from_str(&text).expect("JSON")).expect("an object");
            world.apply(Change::Put(object));
        }
    }
    (world, rows)
}

fn name(at: usize) -> String {
    format!("svc{at:05}")
}

/// What one event costs.
#[derive(Debug, PartialEq)]
struct Cost {
    /// Keys that are planned.
    keys: usize,
    /// Objects that are read: to find whom it concerns, to plan them, to bring the table up to date, and to tell the
    /// autoscaler of the revision.
    visits: u64,
}

/// What it costs when one object of each kind changes.
fn costs(world: &mut World, rows: &Rows, routing: &mut Routing) -> BTreeMap<Kind, Cost> {
    let mut costs = BTreeMap::new();
    for kind in Kind::ALL {
        let of = name(7);
        let Some(key) = world
            .keys(*kind)
            .into_iter()
            .find(|key| kind.scope() == knoll_api::kind::Scope::Cluster || key.name.contains(&of))
        else {
            continue;
        };
        let mut value = world.object(*kind, &key).expect("just listed").to_json();
        value["metadata"]["annotations"]["touched"] = "yes".into();
        let before = world.visits();
        let changes = world.apply(Change::Put(Object::from_json(*kind, value).expect("an object")));
        assert!(!changes.is_empty(), "{kind:?}");
        let mut keys = 0;
        for changed in &changes {
            let woken = rows.woken(world, changed);
            assert!(woken.all.is_empty(), "{kind:?} wakes whole rows");
            keys += woken.keys.len();
            for (row, key) in woken.keys {
                (rows.all()[row].plan)(world, &key, NOW);
            }
        }
        drop(routing.update(world, &changes));
        assert!(!routing.is_behind(), "{kind:?}");
        drop(decider(world, &Key::new("default", format!("{of}-00001"))));
        costs.insert(*kind, Cost { keys, visits: world.visits() - before });
    }
    costs
}

#[test]
fn what_an_event_costs_does_not_grow_with_the_number_of_services() {
    let costs = |services| {
        let (mut world, rows) = world_of(services);
        let mut routing = Routing::new(&world).0;
        costs(&mut world, &rows, &mut routing)
    };
    let (few, many) = (costs(50), costs(10_000));
    assert!(many.len() >= 17, "{many:?}");
    for (kind, cost) in &many {
        assert_eq!(Some(cost), few.get(kind), "{kind:?}: among 10,000 and among 50");
        assert!(cost.visits <= MOST && cost.keys <= KEYS, "{kind:?}: {cost:?}");
    }
}

/// One object of each kind of Eventing's that has a controller, and what they need, with `hello` for a name.
const EVENTING: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config-br-default-channel, namespace: knative-eventing}
data: {channel-template-spec: "{apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}"}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: hello}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: hello}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: hello}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: hello}
subjects: [{kind: ServiceAccount, name: hello, namespace: default}]
---
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: hello, annotations: {eventing.knative.dev/broker.class: MTChannelBasedBroker}}
spec: {config: {apiVersion: v1, kind: ConfigMap, name: config-br-default-channel, namespace: knative-eventing}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: hello}
spec: {broker: hello, subscriber: {ref: {apiVersion: v1, kind: Service, name: hello}}}
---
apiVersion: eventing.knative.dev/v1alpha1
kind: RequestReply
metadata: {name: hello}
spec: {brokerRef: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: hello}, replyAttribute: replyid}
---
apiVersion: eventing.knative.dev/v1alpha1
kind: EventTransform
metadata: {name: hello}
spec: {jsonata: {expression: a}, sink: {ref: {apiVersion: v1, kind: Service, name: hello}}}
---
apiVersion: eventing.knative.dev/v1beta2
kind: EventType
metadata: {name: hello}
spec: {type: t, reference: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: hello}}
---
apiVersion: messaging.knative.dev/v1
kind: InMemoryChannel
metadata: {name: hello}
---
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: {name: hello}
spec:
  channel: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel, name: hello}
  subscriber: {ref: {apiVersion: v1, kind: Service, name: hello}}
---
apiVersion: sources.knative.dev/v1
kind: ApiServerSource
metadata: {name: hello}
spec:
  mode: Reference
  serviceAccountName: hello
  resources: [{apiVersion: v1, kind: Event}]
  sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: hello}}
---
apiVersion: sources.knative.dev/v1
kind: PingSource
metadata: {name: hello}
spec: {schedule: "* * * * *", sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: hello}}}
---
apiVersion: sources.knative.dev/v1alpha1
kind: IntegrationSource
metadata: {name: hello}
spec: {timer: {message: x}, sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: hello}}}
---
apiVersion: sinks.knative.dev/v1alpha1
kind: JobSink
metadata: {name: hello}
spec: {job: {spec: {template: {}}}}
---
apiVersion: sinks.knative.dev/v1alpha1
kind: IntegrationSink
metadata: {name: hello}
spec: {log: {}}
"#;

/// Whether an object's status says that it is ready; true where it has none.
fn is_ready(object: &str) -> bool {
    let value: serde_json::Value = serde_json::from_str(object).expect("JSON");
    let conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().filter(|condition| condition["type"] == "Ready").all(|condition| condition["status"] == "True")
}

#[test]
fn what_an_event_costs_does_not_grow_with_the_number_of_objects_of_eventing() {
    let mut platform = Platform::new();
    platform.add(EVENTING);
    let ready = objects(&platform.cluster.world);
    ready.iter().for_each(|(kind, text)| assert!(is_ready(text), "{kind:?} {text}"));
    let costs = |times| {
        let (mut world, rows) = many(ready.clone(), times);
        let mut routing = Routing::new(&world).0;
        costs(&mut world, &rows, &mut routing)
    };
    let (few, many) = (costs(50), costs(10_000));
    for kind in [Kind::ApiServerSource, Kind::RequestReply, Kind::EventTransform, Kind::JobSink, Kind::RoleBinding] {
        assert!(many.contains_key(&kind), "{kind:?}");
    }
    for (kind, cost) in &many {
        assert_eq!(Some(cost), few.get(kind), "{kind:?}: among 10,000 and among 50");
        assert!(cost.visits <= MOST && cost.keys <= KEYS, "{kind:?}: {cost:?}");
    }
}

#[test]
fn a_service_at_rest_takes_little_room() {
    let services = 500;
    let (mut world, _) = world_of(services);
    world.age();
    world.age();
    let sizes = world.sizes();
    assert_eq!(sizes.iter().map(|size| size.decoded).sum::<usize>(), 0, "nothing stays decoded that nobody reads");
    let objects: usize = sizes.iter().map(|size| size.objects).sum();
    let packed: usize = sizes.iter().map(|size| size.packed_bytes).sum();
    assert!(objects >= services * 15);
    assert!(packed / services <= WEIGHT, "{} bytes a service: {sizes:#?}", packed / services);
    let key = Key::new("default", name(77));
    let service = world.services.get(&key).expect("it exists");
    assert_eq!(service.spec.template.spec.pod_spec.containers[0].image.as_deref(), Some("svc00077:1"));
}
