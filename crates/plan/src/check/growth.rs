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
    let world = &platform.cluster.world;
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
    let settings = Settings::default();
    let (mut world, rows) = (World::new(settings.clone()), rows(&settings));
    for (kind, text) in ready_service() {
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
