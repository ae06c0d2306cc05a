use serde_json::{Value, json};

use super::{
    super::fixture::{print, put, world},
    *,
};
use crate::{Change, Changed, GroupKind, ServedKind, Sighting, UntypedSeen};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// A reference to an owner: `name`, or `Kind/name`; the uid is the name unless it stands after an `=`.
fn reference(owner: &str) -> Value {
    let (owner, uid) = owner.split_once('=').unwrap_or((owner, owner.rsplit('/').next().expect("a name")));
    let (kind, name) = owner.split_once('/').unwrap_or(("ConfigMap", owner));
    let api_version = match kind {
        "ConfigMap" => "v1",
        "PingSource" => "sources.knative.dev/v1beta2",
        _ => "example.com/v7",
    };
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "blockOwnerDeletion": true})
}

fn metadata(name: &str, owners: &[&str], finalizers: &[&str]) -> Value {
    let references: Vec<Value> = owners.iter().map(|owner| reference(owner)).collect();
    let mut metadata = json!({
        "namespace": "a", "name": name, "uid": name, "ownerReferences": references, "finalizers": finalizers,
    });
    if !finalizers.is_empty() {
        metadata["deletionTimestamp"] = "2025-06-15T15:00:00Z".into();
    }
    metadata
}

/// A ConfigMap that is being deleted where it has finalizers.
fn object(w: &mut World, name: &str, owners: &[&str], finalizers: &[&str]) {
    put(w, Kind::ConfigMap, json!({"metadata": metadata(name, owners, finalizers)}));
}

fn gone(w: &mut World, name: &str) {
    w.apply(Change::Gone(Kind::ConfigMap, Key::new("a", name)));
}

fn served(kind: &str) -> ServedKind {
    ServedKind {
        name: GroupKind { group: "example.com".into(), kind: kind.into() },
        version: "v1".into(),
        plural: format!("{}s", kind.to_lowercase()),
        is_namespaced: kind != "World",
    }
}

/// Serves kinds of custom resources, and no others. Nothing of them was listed.
fn serve(w: &mut World, kinds: &[&str]) -> Vec<Changed> {
    w.see(Sighting::Served(kinds.iter().map(|kind| served(kind)).collect()))
}

fn see(w: &mut World, kind: &str, seen: UntypedSeen) -> Vec<Changed> {
    w.see(Sighting::Of(served(kind).name, seen))
}

/// A custom resource that is being deleted where it has finalizers.
fn custom(w: &mut World, kind: &str, name: &str, owners: &[&str], finalizers: &[&str]) -> Vec<Changed> {
    let lineage = Lineage::read(&json!({"metadata": metadata(name, owners, finalizers)}));
    let namespace = if kind == "World" { "" } else { "a" };
    see(w, kind, UntypedSeen::Put(Key::new(namespace, name), lineage))
}

/// A World in which Things and Worlds, of which one is the whole cluster's, are served and listed.
fn with_customs() -> World {
    let mut w = world(&["Namespace a", "Namespace b"]);
    serve(&mut w, &["Thing", "World"]);
    see(&mut w, "Thing", UntypedSeen::Listed);
    see(&mut w, "World", UntypedSeen::Listed);
    w
}

fn thing(w: &World, name: &str) -> (AnyKind, Key) {
    let (kind, _) = w.untyped.known("example.com", "Thing").expect("it is known");
    (AnyKind::Untyped(kind), Key::new("a", name))
}

fn plan(w: &World, name: &str) -> Vec<String> {
    collect(w, AnyKind::Typed(Kind::ConfigMap), &Key::new("a", name)).wants.iter().map(print).collect()
}

fn plan_thing(w: &World, name: &str) -> Vec<String> {
    let (kind, key) = thing(w, name);
    collect(w, kind, &key).wants.iter().map(print).collect()
}

const MAPS: &str = "/api/v1/namespaces/a/configmaps";
const THINGS: &str = "/apis/example.com/v1/namespaces/a/things";

#[test]
fn an_object_with_a_live_owner_stays() {
    let mut w = world(&[]);
    object(&mut w, "o", &[], &[]);
    object(&mut w, "d", &["o"], &[]);
    assert!(plan(&w, "d").is_empty() && plan(&w, "o").is_empty());
}

#[test]
fn a_change_concerns_the_object_its_waiting_owners_and_when_it_goes_its_dependents() {
    let mut w = world(&[]);
    object(&mut w, "o", &[], &[]);
    object(&mut w, "d", &["o"], &[]);
    let kind = AnyKind::Typed(Kind::ConfigMap);
    let key = |name: &str| Key::new("a", name);
    let concerned = |w: &World, name: &str, lineage: &Lineage| -> Vec<String> {
        owners_and_dependents(w, kind, &key(name), lineage).into_iter().map(|(_, key)| key.name).collect()
    };
    let of = |w: &World, name: &str| w.lineage(kind, &key(name)).expect("it is there");
    assert_eq!(concerned(&w, "o", &of(&w, "o")), ["o"]);
    assert_eq!(concerned(&w, "d", &of(&w, "d")), ["d"], "its owner waits for nothing");
    let before = of(&w, "o");
    object(&mut w, "o", &[], &[FOREGROUND]);
    assert_eq!(concerned(&w, "o", &of(&w, "o")), ["d", "o"]);
    assert_eq!(concerned(&w, "d", &of(&w, "d")), ["o", "d"]);
    gone(&mut w, "o");
    assert_eq!(concerned(&w, "o", &before), ["d", "o"]);
}

#[test]
fn an_owner_is_known_by_any_of_its_versions() {
    let mut w = world(&[]);
    put(&mut w, Kind::PingSource, json!({"metadata": metadata("o", &[], &[]), "spec": {}}));
    object(&mut w, "d", &["PingSource/o"], &[]);
    assert!(plan(&w, "d").is_empty(), "its owner is there");
    w.apply(Change::Gone(Kind::PingSource, Key::new("a", "o")));
    let gone = "/apis/sources.knative.dev/v1/namespaces/a/pingsources/o";
    assert_eq!(plan(&w, "d"), [format!("collect {MAPS}/d Background unless {gone} is o")]);
    w.observed.absent.insert(Kind::PingSource);
    assert!(plan(&w, "d").is_empty(), "whether it is there cannot be told");
}

#[test]
fn an_owner_of_another_uid_is_another_owner() {
    let mut w = world(&[]);
    object(&mut w, "o", &[], &[]);
    object(&mut w, "d", &["o=old"], &[]);
    assert_eq!(plan(&w, "d"), [format!("collect {MAPS}/d Background unless {MAPS}/o is old")]);
}

#[test]
fn foreground_deletion_goes_from_the_leaves_up() {
    let mut w = world(&[]);
    object(&mut w, "o", &[], &[FOREGROUND]);
    object(&mut w, "d", &["o"], &[]);
    object(&mut w, "e", &["d"], &[]);
    assert!(plan(&w, "o").is_empty(), "waits");
    assert_eq!(plan(&w, "d"), [format!("collect {MAPS}/d Foreground")]);
    object(&mut w, "d", &["o"], &[FOREGROUND]);
    assert_eq!(plan(&w, "e"), [format!("collect {MAPS}/e Background")]);
    gone(&mut w, "e");
    assert_eq!(plan(&w, "d"), [format!("finalizers of {MAPS}/d without [{FOREGROUND:?}]")]);
    gone(&mut w, "d");
    assert_eq!(plan(&w, "o"), [format!("finalizers of {MAPS}/o without [{FOREGROUND:?}]")]);
}

#[test]
fn what_does_not_block_its_owner_goes_with_it_and_is_not_waited_for() {
    let mut w = world(&[]);
    object(&mut w, "o", &[], &[FOREGROUND]);
    let mut dependent = metadata("d", &["o"], &[]);
    dependent["ownerReferences"][0]["blockOwnerDeletion"] = false.into();
    put(&mut w, Kind::ConfigMap, json!({"metadata": dependent}));
    assert_eq!(plan(&w, "d"), [format!("collect {MAPS}/d Background")]);
    assert_eq!(plan(&w, "o"), [format!("finalizers of {MAPS}/o without [{FOREGROUND:?}]")]);
}

#[test]
fn a_circle_of_waiting_owners_comes_apart() {
    let mut w = world(&[]);
    object(&mut w, "o", &["d"], &[FOREGROUND]);
    object(&mut w, "d", &["o"], &[FOREGROUND]);
    assert_eq!(plan(&w, "o"), [format!("finalizers of {MAPS}/o without [{FOREGROUND:?}]")]);
}

#[test]
fn a_dense_graph_of_owners_that_wait_is_looked_through_within_bounds_and_read_by_nobody() {
    let mut w = world(&[]);
    // What users draw: each waits for all that come before it in order, and none goes.
    let names: Vec<String> = (0..400).rev().map(|at| format!("d{at:03}")).collect();
    object(&mut w, "o", &[], &[FOREGROUND]);
    for (at, name) in names.iter().enumerate() {
        let owners: Vec<&str> = names[..at].iter().map(String::as_str).chain((at == 0).then_some("o")).collect();
        object(&mut w, name, &owners, &[FOREGROUND]);
    }
    w.age();
    w.age();
    let before = w.visits();
    assert!(plan(&w, "o").is_empty(), "it waits");
    let looked_at = w.visits() - before;
    let most = (MOST_OWNED + names.len() + 10) as u64;
    assert!(looked_at <= most, "{looked_at} of {most}");
    let (kind, last) = (AnyKind::Typed(Kind::ConfigMap), Key::new("a", "d000"));
    let lineage = w.lineage(kind, &last).expect("it is there");
    let before = w.visits();
    owners_and_dependents(&w, kind, &last, &lineage);
    assert_eq!(w.visits() - before, 0, "whom a change concerns is found without reading its owners");
}

#[test]
fn a_circle_beside_much_else_comes_apart() {
    let mut w = world(&[]);
    object(&mut w, "o", &["z"], &[FOREGROUND]);
    object(&mut w, "z", &["y"], &[FOREGROUND]);
    object(&mut w, "y", &["o"], &[FOREGROUND]);
    (0..100).for_each(|at| object(&mut w, &format!("p{at}"), &["y"], &[]));
    assert_eq!(plan(&w, "o"), [format!("finalizers of {MAPS}/o without [{FOREGROUND:?}]")]);
}

#[test]
fn what_names_an_owner_in_another_namespace_holds_it_up_and_is_changed_by_nobody() {
    for finalizer in [FOREGROUND, ORPHAN] {
        let mut w = world(&["Namespace a", "Namespace b"]);
        object(&mut w, "o", &[], &[finalizer]);
        let mut elsewhere = metadata("d", &["o"], &["example.com/stays"]);
        elsewhere["namespace"] = "b".into();
        put(&mut w, Kind::ConfigMap, json!({"metadata": elsewhere}));
        assert_eq!(plan(&w, "o"), [format!("finalizers of {MAPS}/o without [{finalizer:?}]")]);
    }
}

#[test]
fn of_many_owners_few_are_sought_in_other_namespaces() {
    let namespaces: Vec<String> = (0..200).map(|at| format!("Namespace n{at}")).collect();
    let mut w = world(&namespaces.iter().map(String::as_str).collect::<Vec<_>>());
    let owners: Vec<String> = (0..1000).map(|at| format!("gone{at}")).collect();
    object(&mut w, "d", &owners.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let before = w.visits();
    assert_eq!(plan(&w, "d").len(), 1, "it goes");
    let looked_at = w.visits() - before;
    assert!(looked_at <= (MOST_SOUGHT * namespaces.len()) as u64 + 10, "{looked_at}");
}

#[test]
fn orphans_lose_their_owner_before_it_goes() {
    let mut w = world(&[]);
    object(&mut w, "o", &[], &[ORPHAN]);
    object(&mut w, "d", &["o"], &[]);
    assert_eq!(plan(&w, "o"), [format!("ownerReferences of {MAPS}/d without [\"o\"]")]);
    object(&mut w, "d", &[], &[]);
    assert_eq!(plan(&w, "o"), [format!("finalizers of {MAPS}/o without [{ORPHAN:?}]")]);
}

#[test]
fn a_second_owner_keeps_an_object_which_leaves_those_that_wait_or_are_absent() {
    let mut w = world(&[]);
    object(&mut w, "o", &[], &[FOREGROUND]);
    object(&mut w, "p", &[], &[]);
    object(&mut w, "d", &["o", "p"], &[]);
    assert_eq!(plan(&w, "d"), [format!("ownerReferences of {MAPS}/d without [\"o\"]")]);
    object(&mut w, "d", &["q", "p"], &[]);
    assert_eq!(plan(&w, "d"), [format!("ownerReferences of {MAPS}/d without [\"q\"] unless {MAPS}/q is q")]);
}

#[test]
fn custom_resources_own_and_are_owned_as_all_others_are() {
    let mut w = with_customs();
    custom(&mut w, "Thing", "t", &[], &[]);
    custom(&mut w, "Thing", "u", &["Thing/t"], &[]);
    custom(&mut w, "Thing", "v", &["c"], &[]);
    object(&mut w, "d", &["Thing/t"], &[]);
    object(&mut w, "c", &[], &[]);
    assert!(["t", "u", "v"].iter().all(|name| plan_thing(&w, name).is_empty()), "their owners are there");
    assert!(plan(&w, "d").is_empty(), "its owner is there");
    gone(&mut w, "c");
    assert_eq!(plan_thing(&w, "v"), [format!("collect {THINGS}/v Background unless {MAPS}/c is c")]);
    let changed = see(&mut w, "Thing", UntypedSeen::Gone(Key::new("a", "t")));
    assert_eq!(plan_thing(&w, "u"), [format!("collect {THINGS}/u Background unless {THINGS}/t is t")]);
    assert_eq!(plan(&w, "d"), [format!("collect {MAPS}/d Background unless {THINGS}/t is t")]);
    let rows = crate::rows_of(&[crate::RowGroup::Cluster]);
    let woken = rows.woken(&w, &changed[0]);
    let names: BTreeSet<(&str, String)> =
        woken.keys.iter().map(|(row, key)| (rows.name(*row), key.name.clone())).collect();
    assert_eq!(names, ["d", "t", "u"].map(|name| (NAME, name.to_owned())).into());
    let (row, key) = woken.keys.iter().find(|(_, key)| key.name == "u").expect("it is woken");
    assert_eq!(rows.plan(*row, &w, key, Timestamp::UNIX_EPOCH).wants.len(), 1, "what is woken is planned for");
}

#[test]
fn a_custom_resource_waits_for_what_it_owns_or_lets_it_go() {
    let mut w = with_customs();
    custom(&mut w, "Thing", "t", &[], &[FOREGROUND]);
    custom(&mut w, "Thing", "u", &["Thing/t"], &[]);
    object(&mut w, "d", &["Thing/u"], &[]);
    assert!(plan_thing(&w, "t").is_empty(), "waits");
    assert_eq!(plan_thing(&w, "u"), [format!("collect {THINGS}/u Foreground")]);
    see(&mut w, "Thing", UntypedSeen::Gone(Key::new("a", "u")));
    assert_eq!(plan_thing(&w, "t"), [format!("finalizers of {THINGS}/t without [{FOREGROUND:?}]")]);
    custom(&mut w, "Thing", "t", &[], &[ORPHAN]);
    object(&mut w, "d", &["Thing/t"], &[]);
    assert_eq!(plan_thing(&w, "t"), [format!("ownerReferences of {MAPS}/d without [\"t\"]")]);
}

#[test]
fn an_owner_of_a_kind_that_is_not_known_may_be_there() {
    let mut w = world(&[]);
    object(&mut w, "d", &["Thing/t"], &[]);
    object(&mut w, "e", &["Thing/t", "nobody"], &[]);
    assert!(plan(&w, "d").is_empty(), "nobody serves it");
    serve(&mut w, &["Thing"]);
    see(&mut w, "Thing", UntypedSeen::Begins);
    assert!(plan(&w, "d").is_empty(), "it was not listed");
    let known = see(&mut w, "Thing", UntypedSeen::Listed);
    let rows = crate::rows_of(&[crate::RowGroup::Cluster]);
    let woken = rows.woken(&w, &known[0]);
    let names: Vec<&str> = woken.keys.iter().map(|(_, key)| key.name.as_str()).collect();
    assert_eq!(names, ["d", "e"], "whoever waited for that");
    assert_eq!(plan(&w, "d"), [format!("collect {MAPS}/d Background unless {THINGS}/t is t")]);
    for unknown in [UntypedSeen::Refused, UntypedSeen::Absent] {
        see(&mut w, "Thing", unknown);
        assert!(plan(&w, "d").is_empty() && plan(&w, "e").is_empty(), "what was known may be otherwise");
        see(&mut w, "Thing", UntypedSeen::Listed);
    }
    serve(&mut w, &[]);
    assert!(plan(&w, "d").is_empty(), "it is served no more");
}

#[test]
fn an_owner_is_held_until_all_is_known_that_it_may_own() {
    let mut w = world(&[]);
    w.untyped.await_kinds();
    let wanted = |w: &World, what: &str| {
        let plan = collect(w, AnyKind::Typed(Kind::ConfigMap), &Key::new("a", "o"));
        assert_eq!((plan.wants.is_empty(), plan.recheck.is_some()), (true, true), "{what}");
    };
    for finalizer in [FOREGROUND, ORPHAN] {
        object(&mut w, "o", &[], &[finalizer]);
        wanted(&w, "nobody knows which kinds there are");
    }
    serve(&mut w, &["Thing", "World"]);
    see(&mut w, "World", UntypedSeen::Refused);
    wanted(&w, "Things were not listed");
    see(&mut w, "Thing", UntypedSeen::Listed);
    assert_eq!(plan(&w, "o"), [format!("finalizers of {MAPS}/o without [{ORPHAN:?}]")]);
}

#[test]
fn an_owner_of_another_namespace_is_absent_and_that_is_told() {
    let mut w = with_customs();
    custom(&mut w, "World", "w", &[], &[]);
    object(&mut w, "d", &["World/w"], &[]);
    assert!(plan(&w, "d").is_empty(), "an owner of no namespace is anybody's");
    let mut elsewhere = metadata("o", &[], &[]);
    elsewhere["namespace"] = "b".into();
    put(&mut w, Kind::ConfigMap, json!({"metadata": elsewhere}));
    object(&mut w, "d", &["o"], &[]);
    let wants = collect(&w, AnyKind::Typed(Kind::ConfigMap), &Key::new("a", "d")).wants;
    let [Want::RecordEvent(event), Want::Collect { .. }] = wants.as_slice() else { panic!("{wants:?}") };
    assert_eq!((event.reason.as_str(), event.kind.as_str()), ("OwnerRefInvalidNamespace", "ConfigMap"));
    let message = r#"ownerRef [v1/ConfigMap, namespace: a, name: o, uid: o] does not exist in namespace "a""#;
    assert_eq!(event.message, message);
    // Of what is in no namespace an owner cannot be in one, and it stays.
    custom(&mut w, "World", "x", &["o"], &[]);
    let (kind, _) = w.untyped.known("example.com", "World").expect("it is known");
    let wants = collect(&w, AnyKind::Untyped(kind), &Key::new("", "x")).wants;
    let [Want::RecordEvent(event)] = wants.as_slice() else { panic!("{wants:?}") };
    assert_eq!((event.api_version.as_str(), event.kind.as_str()), ("example.com/v1", "World"));
}
