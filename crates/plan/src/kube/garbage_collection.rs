//! Owners and dependents: what loses its last owner goes; an owner that was deleted in the foreground waits for its
//! dependents, and one whose dependents are to be orphaned lets them go first.
//!
//! A row a kind, which are woken together ([`owners_and_dependents`]). An owner of a kind that controllers do not know counts as present. That an owner is absent is
//! confirmed with the API server before anything is deleted: the World may hear of a dependent before its owner.

use std::collections::BTreeSet;

use knoll_api::{
    Key, Kind, Object, Timestamp, for_each_kind,
    k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    kind::Scope,
};
use serde_json::Value;

use crate::{Absence, Plan, Propagation, Row, Want, World};

/// Name of the rows.
pub(crate) const NAME: &str = "garbage-collection";
/// Finalizer of an owner that waits for its dependents.
const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner that lets its dependents go.
const ORPHAN: &str = "orphan";
/// Most dependents one plan acts on; the rest follows once these are seen.
const BURST: usize = 500;

macro_rules! collectors {
    ($($variant:ident, $field:ident, $group:literal, $version:literal, $plural:literal, $kind:literal, $scope:ident, $ty:ty;)*) => {
        mod row {
            use super::{Key, Kind, Plan, Timestamp, World, collect};
            $(
                pub(super) fn $field(world: &World, key: &Key, _now: Timestamp) -> Plan {
                    collect(world, Kind::$variant, key)
                }
            )*
        }

        /// A row for every kind.
        pub(super) fn rows() -> Vec<Row> {
            vec![$(Row {
                name: NAME,
                of: Kind::$variant,
                wakes: &[],
                configs: &[],
                reads: Kind::ALL,
                absence: Absence::IsEmpty,
                plan: row::$field,
            }),*]
        }
    };
}
for_each_kind!(collectors);

/// An object concerns itself; an owner that goes concerns its dependents; a dependent that changes concerns owners that
/// wait for it.
pub(crate) fn owners_and_dependents(world: &World, object: &Object) -> Vec<(Kind, Key)> {
    let (meta, kind, key) = (object.meta(), object.kind(), object.key());
    let mut concerned = Vec::new();
    if let Some(uid) = meta.uid.as_deref()
        && (meta.deletion_timestamp.is_some() || !world.holds(kind, &key, uid))
    {
        concerned = world.dependents(uid);
    }
    for owner in meta.owner_references.iter().flatten() {
        let Some(kind) = kind_of(owner) else { continue };
        let key = key_of(kind, owner, meta);
        if world.meta(kind, &key).is_some_and(|owner| owner.deletion_timestamp.is_some()) {
            concerned.push((kind, key));
        }
    }
    concerned.push((kind, key));
    concerned
}

/// The kind of an owner, whichever of its versions the reference names.
fn kind_of(owner: &OwnerReference) -> Option<Kind> {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    Kind::in_any_version(group, &owner.kind)
}

fn key_of(kind: Kind, owner: &OwnerReference, dependent: &ObjectMeta) -> Key {
    match kind.scope() {
        Scope::Cluster => Key::new("", owner.name.clone()),
        Scope::Namespaced => Key::new(dependent.namespace.clone().unwrap_or_default(), owner.name.clone()),
    }
}

fn has(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|one| one == finalizer)
}

fn collect(world: &World, kind: Kind, key: &Key) -> Plan {
    let mut plan = Plan::nothing();
    let Some(meta) = world.meta(kind, key) else { return plan };
    if meta.deletion_timestamp.is_some() {
        if has(&meta, FOREGROUND) {
            wait_for_dependents(&mut plan, world, kind, key, &meta);
        } else if has(&meta, ORPHAN) {
            orphan_dependents(&mut plan, world, kind, key, &meta);
        }
    } else if meta.owner_references.as_ref().is_some_and(|owners| !owners.is_empty()) {
        follow_owners(&mut plan, world, kind, key, &meta);
    }
    plan
}

/// How an owner reference stands.
enum Standing {
    /// The owner exists, or may.
    Solid,
    /// The owner exists and waits for this dependent.
    Waiting,
    /// The World does not hold the owner.
    Absent(Kind, Key),
}

fn standing(world: &World, owner: &OwnerReference, dependent: &ObjectMeta) -> Standing {
    let Some(kind) = kind_of(owner) else { return Standing::Solid };
    let key = key_of(kind, owner, dependent);
    match world.meta(kind, &key) {
        Some(meta) if meta.uid.as_deref() == Some(owner.uid.as_str()) => {
            let waits = meta.deletion_timestamp.is_some() && has(&meta, FOREGROUND);
            if waits && owner.block_owner_deletion == Some(true) { Standing::Waiting } else { Standing::Solid }
        }
        _ => Standing::Absent(kind, key),
    }
}

/// Goes when every owner is absent or waits for it; leaves the waiting ones when another stays.
fn follow_owners(plan: &mut Plan, world: &World, kind: Kind, key: &Key, meta: &ObjectMeta) {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let (mut solid, mut waiting, mut absent) = (false, Vec::new(), Vec::new());
    for owner in owners {
        match standing(world, owner, meta) {
            Standing::Solid => solid = true,
            Standing::Waiting => waiting.push(owner.uid.as_str()),
            Standing::Absent(kind, key) => absent.push((kind, key, owner.uid.clone())),
        }
    }
    let uid = meta.uid.clone().unwrap_or_default();
    if solid {
        if !waiting.is_empty() {
            release(plan, world, kind, key, &waiting);
        }
    } else if !waiting.is_empty() {
        let has_dependents = !world.dependents(&uid).is_empty();
        let propagation = if has_dependents { Propagation::Foreground } else { Propagation::Background };
        plan.wants.push(Want::Delete { kind, key: key.clone(), uid, grace_seconds: None, propagation });
    } else {
        plan.wants.push(Want::Collect { kind, key: key.clone(), uid, owners: absent });
    }
}

/// Lets the owner go once nothing that blocks it is left. The dependents delete themselves, see [`follow_owners`].
fn wait_for_dependents(plan: &mut Plan, world: &World, kind: Kind, key: &Key, meta: &ObjectMeta) {
    let uid = meta.uid.as_deref().unwrap_or_default();
    let blocks = |dependent: &(Kind, Key)| {
        let Some(meta) = world.meta(dependent.0, &dependent.1) else { return false };
        let blocking = |owner: &&OwnerReference| owner.uid == uid && owner.block_owner_deletion == Some(true);
        meta.owner_references.iter().flatten().any(|owner| blocking(&owner)) && !waits_for(world, &meta, uid)
    };
    if !world.dependents(uid).iter().any(blocks) {
        drop_finalizer(plan, world, kind, key, FOREGROUND);
    }
}

/// Whether a dependent that is being deleted waits, through others, for `uid` itself: a circle nobody would leave.
fn waits_for(world: &World, dependent: &ObjectMeta, uid: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut left = vec![dependent.clone()];
    while let Some(meta) = left.pop() {
        let own = meta.uid.clone().unwrap_or_default();
        if own == uid {
            return true;
        }
        if meta.deletion_timestamp.is_none() || !has(&meta, FOREGROUND) || !seen.insert(own.clone()) {
            continue;
        }
        left.extend(
            world
                .dependents(&own)
                .iter()
                .filter_map(|(kind, key)| world.meta(*kind, key).map(|meta| ObjectMeta::clone(&meta))),
        );
    }
    false
}

fn orphan_dependents(plan: &mut Plan, world: &World, kind: Kind, key: &Key, meta: &ObjectMeta) {
    let uid = meta.uid.as_deref().unwrap_or_default();
    let dependents = world.dependents(uid);
    if dependents.is_empty() {
        drop_finalizer(plan, world, kind, key, ORPHAN);
    }
    for (kind, key) in dependents.into_iter().take(BURST) {
        release(plan, world, kind, &key, &[uid]);
    }
}

/// Takes the references to these owners off an object.
fn release(plan: &mut Plan, world: &World, kind: Kind, key: &Key, owners: &[&str]) {
    let stays = |owner: &Value| !owner["uid"].as_str().is_some_and(|uid| owners.contains(&uid));
    rewrite(plan, world, kind, key, "ownerReferences", stays);
}

fn drop_finalizer(plan: &mut Plan, world: &World, kind: Kind, key: &Key, finalizer: &str) {
    rewrite(plan, world, kind, key, "finalizers", |one| one.as_str() != Some(finalizer));
}

/// Keeps of a list in an object's metadata only what `stays`.
fn rewrite(plan: &mut Plan, world: &World, kind: Kind, key: &Key, list: &str, stays: impl Fn(&Value) -> bool) {
    let Some(object) = world.object(kind, key) else { return };
    let mut value = object.to_json();
    if let Some(items) = value.pointer_mut(&format!("/metadata/{list}")).and_then(Value::as_array_mut) {
        items.retain(|item| stays(item));
    }
    let wanted = Object::from_json(kind, value).expect("an object stays well-formed when a list of it shrinks");
    plan.wants.push(Want::Update(wanted));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixture::{print, put, world};
    use super::*;

    fn owned_by(owners: &[(&str, &str)]) -> Value {
        let refs = owners.iter().map(|(name, uid)| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": true})
        });
        refs.collect()
    }

    fn object(w: &mut World, name: &str, uid: &str, owners: &[(&str, &str)], finalizers: &[&str]) {
        let mut metadata = json!({
            "namespace": "a", "name": name, "uid": uid,
            "ownerReferences": owned_by(owners), "finalizers": finalizers,
        });
        if !finalizers.is_empty() {
            metadata["deletionTimestamp"] = "2025-06-15T15:00:00Z".into();
        }
        put(w, Kind::ConfigMap, json!({"metadata": metadata}));
    }

    fn plan(w: &World, name: &str) -> Vec<String> {
        collect(w, Kind::ConfigMap, &Key::new("a", name)).wants.iter().map(print).collect()
    }

    #[test]
    fn an_object_with_a_live_owner_stays() {
        let mut w = world(&[]);
        object(&mut w, "o", "1", &[], &[]);
        object(&mut w, "d", "2", &[("o", "1")], &[]);
        assert!(plan(&w, "d").is_empty() && plan(&w, "o").is_empty());
    }

    #[test]
    fn a_change_concerns_the_object_its_waiting_owners_and_when_it_goes_its_dependents() {
        let mut w = world(&[]);
        object(&mut w, "o", "1", &[], &[]);
        object(&mut w, "d", "2", &[("o", "1")], &[]);
        let concerned = |w: &World, name: &str| -> Vec<String> {
            let object = w.object(Kind::ConfigMap, &Key::new("a", name)).expect("it is there");
            owners_and_dependents(w, &object).into_iter().map(|(_, key)| key.name).collect()
        };
        assert_eq!(concerned(&w, "o"), ["o"]);
        assert_eq!(concerned(&w, "d"), ["d"], "its owner waits for nothing");
        let before = w.object(Kind::ConfigMap, &Key::new("a", "o")).expect("it is there");
        object(&mut w, "o", "1", &[], &[FOREGROUND]);
        assert_eq!(concerned(&w, "o"), ["d", "o"]);
        assert_eq!(concerned(&w, "d"), ["o", "d"]);
        w.apply(crate::Change::Gone(Kind::ConfigMap, Key::new("a", "o")));
        let gone: Vec<_> = owners_and_dependents(&w, &before).into_iter().map(|(_, key)| key.name).collect();
        assert_eq!(gone, ["d", "o"]);
    }

    #[test]
    fn an_owner_is_known_by_any_of_its_versions() {
        let mut w = world(&[]);
        let metadata =
            |name: &str, owners: Value| json!({"namespace": "a", "name": name, "uid": name, "ownerReferences": owners});
        put(&mut w, Kind::PingSource, json!({"metadata": metadata("o", json!([])), "spec": {}}));
        let owner =
            json!([{"apiVersion": "sources.knative.dev/v1beta2", "kind": "PingSource", "name": "o", "uid": "o"}]);
        put(&mut w, Kind::ConfigMap, json!({"metadata": metadata("d", owner)}));
        assert!(plan(&w, "d").is_empty(), "its owner is there");
        w.apply(crate::Change::Gone(Kind::PingSource, Key::new("a", "o")));
        let owners = vec![(Kind::PingSource, Key::new("a", "o"), "o".to_owned())];
        let wants = collect(&w, Kind::ConfigMap, &Key::new("a", "d")).wants;
        assert_eq!(wants, [Want::Collect { kind: Kind::ConfigMap, key: Key::new("a", "d"), uid: "d".into(), owners }]);
    }

    #[test]
    fn an_owner_of_another_uid_is_another_owner() {
        let mut w = world(&[]);
        object(&mut w, "o", "new", &[], &[]);
        object(&mut w, "d", "2", &[("o", "old")], &[]);
        let wants = collect(&w, Kind::ConfigMap, &Key::new("a", "d")).wants;
        let owners = vec![(Kind::ConfigMap, Key::new("a", "o"), "old".to_owned())];
        assert_eq!(wants, [Want::Collect { kind: Kind::ConfigMap, key: Key::new("a", "d"), uid: "2".into(), owners }]);
    }

    #[test]
    fn foreground_deletion_goes_from_the_leaves_up() {
        let mut w = world(&[]);
        object(&mut w, "o", "1", &[], &[FOREGROUND]);
        object(&mut w, "d", "2", &[("o", "1")], &[]);
        object(&mut w, "e", "3", &[("d", "2")], &[]);
        assert!(plan(&w, "o").is_empty(), "waits");
        assert_eq!(plan(&w, "d"), ["delete ConfigMap a/d Foreground"]);
        object(&mut w, "d", "2", &[("o", "1")], &[FOREGROUND]);
        assert_eq!(plan(&w, "e"), ["delete ConfigMap a/e Background"]);
        w.apply(crate::Change::Gone(Kind::ConfigMap, Key::new("a", "e")));
        assert_eq!(plan(&w, "d"), ["update ConfigMap a/d"]);
        w.apply(crate::Change::Gone(Kind::ConfigMap, Key::new("a", "d")));
        assert_eq!(plan(&w, "o"), ["update ConfigMap a/o"]);
    }

    #[test]
    fn a_circle_of_waiting_owners_comes_apart() {
        let mut w = world(&[]);
        object(&mut w, "o", "1", &[("d", "2")], &[FOREGROUND]);
        object(&mut w, "d", "2", &[("o", "1")], &[FOREGROUND]);
        assert_eq!(plan(&w, "o"), ["update ConfigMap a/o"]);
    }

    #[test]
    fn orphans_lose_their_owner_before_it_goes() {
        let mut w = world(&[]);
        object(&mut w, "o", "1", &[], &[ORPHAN]);
        object(&mut w, "d", "2", &[("o", "1")], &[]);
        let wants = collect(&w, Kind::ConfigMap, &Key::new("a", "o")).wants;
        let [Want::Update(Object::ConfigMap(d))] = wants.as_slice() else { panic!("{wants:?}") };
        assert!(d.metadata.owner_references.iter().flatten().next().is_none());
        object(&mut w, "d", "2", &[], &[]);
        assert_eq!(plan(&w, "o"), ["update ConfigMap a/o"]);
    }

    #[test]
    fn a_second_owner_keeps_an_object_and_the_waiting_one_is_let_go() {
        let mut w = world(&[]);
        object(&mut w, "o", "1", &[], &[FOREGROUND]);
        object(&mut w, "p", "9", &[], &[]);
        object(&mut w, "d", "2", &[("o", "1"), ("p", "9")], &[]);
        let wants = collect(&w, Kind::ConfigMap, &Key::new("a", "d")).wants;
        let [Want::Update(Object::ConfigMap(d))] = wants.as_slice() else { panic!("{wants:?}") };
        let uids: Vec<_> = d.metadata.owner_references.iter().flatten().map(|owner| owner.uid.as_str()).collect();
        assert_eq!(uids, ["9"]);
    }
}
