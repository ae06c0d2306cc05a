//! A World in a few lines, and plans printed and carried out in it, for the tests of this module.

use knoll_api::{Key, Kind, Object, Timestamp};
use serde_json::{Value, json};

use crate::{Change, Row, Settings, Target, Want, World};

/// The time of every fixture.
pub(super) const NOW: Timestamp = Timestamp::constant(1_750_000_000, 0);

/// A World with these objects: `Kind [namespace/]name [deleting]`.
pub(super) fn world(lines: &[&str]) -> World {
    let mut world = World::new(Settings::default());
    for line in lines {
        let mut words = line.split_whitespace();
        let (kind, name) = (words.next().expect("a kind"), words.next().expect("a name"));
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        let kind = *Kind::ALL.iter().find(|k| format!("{k:?}") == kind).expect("a known kind");
        let mut metadata = json!({"name": name, "finalizers": []});
        if !namespace.is_empty() {
            metadata["namespace"] = namespace.into();
        }
        if words.next() == Some("deleting") {
            metadata["deletionTimestamp"] = "2025-06-15T15:00:00Z".into();
        }
        put(&mut world, kind, json!({"metadata": metadata}));
    }
    world
}

/// Puts an object; what the API server would fill in is filled in.
pub(super) fn put(world: &mut World, kind: Kind, mut value: Value) {
    let metadata = value["metadata"].as_object_mut().expect("metadata");
    let id = format!(
        "{}:{}/{}",
        kind.kind(),
        metadata.get("namespace").and_then(Value::as_str).unwrap_or_default(),
        metadata["name"].as_str().expect("a name")
    );
    metadata.entry("uid").or_insert(id.into());
    metadata.entry("resourceVersion").or_insert("1".into());
    metadata.entry("creationTimestamp").or_insert("2025-06-15T14:00:00Z".into());
    metadata.entry("generation").or_insert(1.into());
    let object = Object::from_json(kind, value).expect("a well-formed object");
    world.apply(Change::Put(object));
}

/// Plans `key`, carries every want out in `world`, and prints them, one a line.
pub(super) fn plan_of(row: &Row, world: &mut World, key: &str) -> String {
    let wants = wants_of(row, world, key);
    carry_out(world, &wants);
    wants.iter().map(|want| print(want) + "\n").collect()
}

/// What `key` wants; Kubernetes Events left out.
pub(super) fn wants_of(row: &Row, world: &World, key: &str) -> Vec<Want> {
    let (namespace, name) = key.split_once('/').expect("namespace/name");
    let mut wants = (row.plan)(world, &Key::new(namespace, name), NOW).wants;
    wants.retain(|want| !matches!(want, Want::RecordEvent(_)));
    wants
}

/// Plans `keys` in turn until none wants anything.
///
/// # Panics
/// When that takes more than 100 rounds.
pub(super) fn settle(world: &mut World, keys: &[(&Row, &str)]) -> String {
    let mut printed = String::new();
    for _ in 0..100 {
        let round: String = keys.iter().map(|(row, key)| plan_of(row, world, key)).collect();
        if round.is_empty() {
            return printed;
        }
        printed += &round;
    }
    panic!("no rest after 100 rounds:\n{printed}");
}

/// A want in a line.
pub(super) fn print(want: &Want) -> String {
    let of = |verb: &str, object: &Object| format!("{verb} {} {}", object.kind().kind(), object.key());
    match want {
        Want::Create(object) => of("create", object),
        Want::Update(object) => of("update", object),
        Want::Status(object) => of("status", object),
        Want::Finalize(object) => of("finalize", object),
        Want::Scale { kind, key, replicas } => format!("scale {} {key} to {replicas}", kind.kind()),
        Want::Delete { kind, key, propagation, .. } => format!("delete {} {key} {propagation:?}", kind.kind()),
        Want::Collect { object, absent, propagation, .. } => {
            format!("collect {} {propagation:?}{}", object.path, unless(absent))
        }
        Want::Shrink { object, list, without, absent, .. } => {
            format!("{} of {} without {without:?}{}", list.field(), object.path, unless(absent))
        }
        Want::Bind { pod, node, .. } => format!("bind {pod} to {node}"),
        other => format!("{other:?}"),
    }
}

/// Owners that are to be confirmed absent.
fn unless(absent: &[(Target, String)]) -> String {
    absent.iter().map(|(owner, uid)| format!(" unless {} is {uid}", owner.path)).collect()
}

/// Does to `world` what the API server would do.
pub(super) fn carry_out(world: &mut World, wants: &[Want]) {
    for want in wants {
        match want {
            Want::Create(object) => {
                assert!(world.object(object.kind(), &object.key()).is_none(), "{} exists", object.key());
                let mut value = object.to_json();
                value["metadata"]["creationTimestamp"] = NOW.to_string().into();
                put(world, object.kind(), value);
            }
            Want::Update(object) | Want::Status(object) | Want::Finalize(object) => {
                let meta = object.meta();
                let finalizers = meta.finalizers.as_ref().is_some_and(|list| !list.is_empty());
                if meta.deletion_timestamp.is_some() && !finalizers && matches!(want, Want::Update(_)) {
                    world.apply(Change::Gone(object.kind(), object.key()));
                    continue;
                }
                let mut value = object.to_json();
                let before = world.object(object.kind(), &object.key()).expect("it exists").to_json();
                if value["spec"] != before["spec"] {
                    value["metadata"]["generation"] = (meta.generation.unwrap_or_default() + 1).into();
                }
                put(world, object.kind(), value);
            }
            Want::Delete { kind, key, .. } => {
                world.apply(Change::Gone(*kind, key.clone()));
            }
            Want::Bind { pod, node, .. } => {
                let mut value = world.object(Kind::Pod, pod).expect("it exists").to_json();
                value["spec"]["nodeName"] = node.clone().into();
                put(world, Kind::Pod, value);
            }
            _ => {}
        }
    }
}

/// Marks a pod ready.
pub(super) fn make_ready(world: &mut World, pod: &Key) {
    let mut value = world.object(Kind::Pod, pod).expect("it exists").to_json();
    value["status"] = json!({
        "phase": "Running",
        "podIP": format!("10.244.0.{}", world.pods.keys().position(|key| key == *pod).expect("it exists") + 2),
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": NOW.to_string()}],
    });
    put(world, Kind::Pod, value);
}
