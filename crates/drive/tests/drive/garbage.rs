//! Owners and dependents of which one is of a kind that controllers do not know as a type.

use knoll_api::{Key, Kind};
use serde_json::{Value, json};

use crate::{Fake, cluster, start};

fn key(name: &str) -> Key {
    Key::new("a", name)
}

/// Metadata of an object with these owners: Things, but for the ConfigMap `map`.
fn metadata(name: &str, owners: &[&str]) -> Value {
    let reference = |owner: &&str| {
        let (api_version, kind, uid) = match *owner {
            "map" => ("v1", "ConfigMap", format!("ConfigMap/a/{owner}")),
            _ => ("example.com/v1", "Thing", format!("things/a/{owner}")),
        };
        json!({"apiVersion": api_version, "kind": kind, "name": owner, "uid": uid, "blockOwnerDeletion": true})
    };
    json!({"namespace": "a", "name": name, "ownerReferences": owners.iter().map(reference).collect::<Vec<_>>()})
}

fn thing(fake: &Fake, name: &str, owners: &[&str]) {
    fake.put_custom("things", json!({"metadata": metadata(name, owners)}));
}

fn map(fake: &Fake, name: &str, owners: &[&str]) {
    fake.put(Kind::ConfigMap, json!({"metadata": metadata(name, owners)}));
}

fn is_thing(fake: &Fake, name: &str) -> bool {
    fake.custom("things", &key(name)).is_some()
}

fn is_map(fake: &Fake, name: &str) -> bool {
    fake.get(Kind::ConfigMap, &key(name)).is_some()
}

async fn is_watched(fake: &Fake) {
    fake.until("Things are watched", |fake| fake.watching_customs("things") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_custom_resource_owns_goes_with_it_and_it_goes_with_its_owner() {
    let fake = cluster();
    let running = start(&fake);
    fake.serve("things", "Thing");
    map(&fake, "map", &[]);
    thing(&fake, "owner", &["map"]);
    thing(&fake, "child", &["owner"]);
    map(&fake, "other", &["owner"]);
    map(&fake, "kept", &["owner", "map"]);
    is_watched(&fake).await;
    fake.delete_custom("things", &key("owner"), "Background");
    fake.until("what it owned is gone", |fake| !is_thing(fake, "child") && !is_map(fake, "other")).await;
    let owners = |fake: &Fake| {
        fake.get(Kind::ConfigMap, &key("kept"))
            .map_or(0, |kept| kept["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len))
    };
    fake.until("what has another owner is left with that", |fake| owners(fake) == 1).await;
    thing(&fake, "owner", &["map"]);
    fake.delete(Kind::ConfigMap, &key("map"));
    fake.until("it is gone, and what was left", |fake| !is_thing(fake, "owner") && !is_map(fake, "kept")).await;
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_custom_resource_waits_for_what_it_owns_in_the_foreground() {
    let fake = cluster();
    let running = start(&fake);
    fake.serve("things", "Thing");
    thing(&fake, "owner", &[]);
    // Held by somebody else.
    let mut child = metadata("child", &["owner"]);
    child["finalizers"] = json!(["example.com/held"]);
    fake.put_custom("things", json!({"metadata": child}));
    map(&fake, "grandchild", &["child"]);
    is_watched(&fake).await;
    fake.delete_custom("things", &key("owner"), "Foreground");
    let is_going = |fake: &Fake| {
        fake.custom("things", &key("child")).is_some_and(|child| child["metadata"]["deletionTimestamp"].is_string())
    };
    fake.until("the child goes, after its own", |fake| is_going(fake) && !is_map(fake, "grandchild")).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert!(is_thing(&fake, "owner"), "it waits");
    let mut child = fake.custom("things", &key("child")).expect("it is held");
    child["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = false.into();
    fake.put_custom("things", child);
    fake.until("the owner is gone: nothing blocks it", |fake| !is_thing(fake, "owner")).await;
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn what_is_orphaned_stays_without_its_owner() {
    let fake = cluster();
    let running = start(&fake);
    fake.serve("things", "Thing");
    thing(&fake, "owner", &[]);
    thing(&fake, "child", &["owner"]);
    map(&fake, "other", &["owner"]);
    is_watched(&fake).await;
    fake.delete_custom("things", &key("owner"), "Orphan");
    fake.until("the owner is gone", |fake| !is_thing(fake, "owner")).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let [child, other] = [fake.custom("things", &key("child")), fake.get(Kind::ConfigMap, &key("other"))];
    for left in [child, other] {
        assert_eq!(left.expect("it is left")["metadata"]["ownerReferences"], json!([]));
    }
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn an_owner_of_a_kind_that_is_not_served_may_be_there() {
    let fake = cluster();
    let running = start(&fake);
    map(&fake, "dependent", &["nobody"]);
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    assert!(is_map(&fake, "dependent"), "nobody knows of Things");
    fake.serve("things", "Thing");
    thing(&fake, "owner", &[]);
    map(&fake, "owned", &["owner"]);
    fake.until("there is no such Thing", |fake| !is_map(fake, "dependent")).await;
    is_watched(&fake).await;
    fake.unserve("things");
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    assert!(is_map(&fake, "owned"), "nothing is known of its owner");
    fake.serve("things", "Thing");
    fake.until("its owner did not come back", |fake| !is_map(fake, "owned")).await;
    drop(running);
}

/// Memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("there is a /proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a number")
}

#[tokio::test(start_paused = true)]
#[ignore = "weighs what 500 kinds without objects cost"]
async fn kinds_in_which_nothing_happens_weigh_little() {
    let fake = cluster();
    let running = start(&fake);
    fake.serve("things", "Thing");
    is_watched(&fake).await;
    let before = resident();
    let names: Vec<&'static str> = (0..500).map(|at| &*format!("kind{at}s").leak()).collect();
    names.iter().for_each(|name| fake.serve(name, name));
    fake.until("all are watched", |fake| names.iter().all(|name| fake.watching_customs(name) == 1)).await;
    let grown = resident().saturating_sub(before);
    println!("500 kinds: {grown} KiB, the ends of a server that holds nothing included");
    assert!(grown < 32 << 10, "{grown} KiB for 500 kinds in which nothing happens");
    drop(running);
}
