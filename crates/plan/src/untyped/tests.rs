use serde_json::json;

use super::*;

fn served(kind: &str) -> ServedKind {
    ServedKind {
        name: GroupKind { group: "example.com".into(), kind: kind.into() },
        version: "v1".into(),
        plural: "things".into(),
        is_namespaced: true,
    }
}

fn world(kinds: &[&str]) -> World {
    let mut world = World::new(crate::Settings::default());
    world.see(Sighting::Served(kinds.iter().map(|kind| served(kind)).collect()));
    world
}

fn lineage(uid: &str, owners: &[&str]) -> Lineage {
    let owner = |uid: &&str| json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "o", "uid": uid});
    let owners: Vec<_> = owners.iter().map(owner).collect();
    Lineage::read(&json!({"metadata": {"uid": uid, "ownerReferences": owners}}))
}

fn see(world: &mut World, kind: &str, seen: UntypedSeen) -> usize {
    world.see(Sighting::Of(served(kind).name, seen)).len()
}

fn put(world: &mut World, name: &str, uid: &str, owners: &[&str]) -> usize {
    see(world, "Thing", UntypedSeen::Put(Key::new("a", name), lineage(uid, owners)))
}

#[test]
fn a_listing_replaces_what_was_known() {
    let mut world = world(&["Thing"]);
    assert!(world.untyped.known("example.com", "Thing").is_none(), "nothing was listed");
    assert_eq!(put(&mut world, "gone", "1", &["o"]), 1);
    assert_eq!(see(&mut world, "Thing", UntypedSeen::Begins), 0);
    let item = |name: &str, uid: &str| UntypedSeen::Item(Key::new("a", name), lineage(uid, &["o"]));
    assert_eq!(see(&mut world, "Thing", item("new", "2")), 1);
    assert_eq!(see(&mut world, "Thing", item("new", "2")), 0, "it is as it was");
    assert_eq!(see(&mut world, "Thing", UntypedSeen::Listed), 2, "one is gone, and all is known");
    assert_eq!(world.untyped.find(Term::Owner("o")).len(), 1);
    assert_eq!(see(&mut world, "Thing", UntypedSeen::Listed), 0, "it was known");
    assert_eq!(put(&mut world, "new", "2", &[]), 1);
    assert!(world.untyped.find(Term::Owner("o")).is_empty() && world.untyped.by_term.is_empty());
}

#[test]
fn what_is_served_no_more_is_forgotten_and_its_place_is_anothers() {
    let mut world = world(&["Thing", "Other"]);
    put(&mut world, "a", "1", &["o"]);
    assert_eq!(world.see(Sighting::Served(vec![served("Other")])).len(), 1, "it is gone with its kind");
    assert_eq!(world.untyped.size(), (1, 0, 0));
    assert_eq!(put(&mut world, "a", "1", &["o"]), 0, "what comes late is not taken in");
    world.see(Sighting::Served(vec![served("Other"), served("Third")]));
    assert_eq!(world.untyped.kinds.len(), 2, "no more places than kinds");
    assert!(!world.untyped.is_complete());
}

#[test]
fn an_object_weighs_its_names() {
    let mut world = world(&["Thing"]);
    for at in 0..1000 {
        put(&mut world, &format!("thing-{at:04}"), &format!("5a1b2c3d-0000-4000-8000-00000000{at:04}"), &[]);
    }
    let (_, objects, bytes) = world.untyped.size();
    assert_eq!((objects, bytes), (1000, 1000 * ("a\0thing-0000".len() + 36)));
    let words = size_of::<Packed>() + size_of::<Arc<str>>();
    assert!(words <= 56, "{words} bytes beside these");
    put(&mut world, "owned", "u", &["5a1b2c3d-0000-4000-8000-000000000000"]);
    let owned = world.untyped.size().2 - bytes;
    assert!(owned < 200, "{owned} bytes with an owner");
    let all: Vec<Key> = world.untyped.concerned().into_iter().map(|(_, key)| key).collect();
    assert_eq!(all, [Key::new("a", "owned")]);
}
