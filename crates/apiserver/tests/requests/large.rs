//! What one tenant has stored may be large: reading it costs others neither the thread nor the memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use knoll_store::{Durability, Expect};
use serde_json::{Value, json};

use super::support::Harness;

/// Bytes of each large object, about.
const LARGE: usize = 1 << 20;
const COUNT: usize = 24;

/// Stores objects of a kind as the server does, without a request for each.
async fn stored(h: &Harness, folder: &str, count: usize, object: impl Fn(&str) -> Value) {
    for at in 0..count {
        let name = format!("large{at:03}");
        let object = object(&name);
        let rest = object.as_object().expect("an object").iter().filter(|(key, _)| *key != "metadata");
        // The metadata stands first.
        let mut text = format!("{{\"metadata\":{}", object["metadata"]);
        rest.for_each(|(key, value)| text += &format!(",\"{key}\":{value}"));
        text.push('}');
        let put = h.store.put(format!("{folder}{name}"), Bytes::from(text), Expect::Absent, Durability::Relaxed);
        put.await.expect("it is stored");
    }
}

fn map(name: &str) -> Value {
    let data = json!({"a": "x".repeat(LARGE)});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default", "uid": name}, "data": data})
}

/// A server with large ConfigMaps, on a runtime of one thread.
async fn with_maps() -> Harness {
    let h = Harness::new().await;
    stored(&h, "/core/configmaps/default/", COUNT, map).await;
    h
}

/// How often others had the thread while something was done, which may read everything in one go.
async fn turns_of_others<T>(work: impl Future<Output = T>) -> (usize, T) {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    let others = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Relaxed);
            tokio::task::yield_now().await;
        }
    });
    tokio::task::yield_now().await;
    let before = turns.load(Relaxed);
    let done = work.await;
    others.abort();
    (turns.load(Relaxed) - before, done)
}

#[tokio::test]
async fn lists_that_read_much_let_others_have_the_thread() {
    let h = with_maps().await;
    for query in ["?labelSelector=none", "?limit=500", ""] {
        let path = format!("/api/v1/namespaces/default/configmaps{query}");
        let (turns, answer) = turns_of_others(h.get(&path)).await;
        answer.expect(200);
        assert!(turns >= COUNT / 2, "{query}: {turns}");
    }
}

#[tokio::test]
async fn a_page_ends_where_it_is_long_enough() {
    let h = with_maps().await;
    let (mut names, mut pages, mut query) = (Vec::new(), 0, "?limit=500".to_owned());
    loop {
        let page = h.get(&format!("/api/v1/namespaces/default/configmaps{query}")).await;
        assert!(page.text.len() < 20 << 20, "{} bytes", page.text.len());
        let page = page.expect(200);
        let items = page["items"].as_array().expect("items");
        names.extend(items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()));
        pages += 1;
        let Some(token) = page["metadata"]["continue"].as_str() else { break };
        query = format!("?limit=500&continue={token}");
    }
    assert_eq!((names.iter().filter(|name| name.starts_with("large")).count(), pages), (COUNT, 2));
}

#[tokio::test]
async fn a_watch_sends_what_there_is_piece_by_piece() {
    let h = with_maps().await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = h.watch(&format!("/api/v1/namespaces/default/configmaps?{query}")).await;
    let mut names = Vec::new();
    loop {
        let event = events.next().await.expect("an event");
        if event["type"] == "BOOKMARK" {
            break;
        }
        assert_eq!(event["type"], "ADDED");
        names.push(event["object"]["metadata"]["name"].as_str().expect("a name").to_owned());
    }
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(names, sorted, "each once, in order");
    assert_eq!(names.iter().filter(|name| name.starts_with("large")).count(), COUNT);
}

#[tokio::test]
async fn many_large_objects_are_deleted_and_few_of_them_told() {
    let h = with_maps().await;
    let deleted = h.send("DELETE", "/api/v1/namespaces/default/configmaps", Value::Null).await;
    assert!(deleted.text.len() < 20 << 20, "{} bytes", deleted.text.len());
    deleted.expect(200);
    assert_eq!(h.get("/api/v1/namespaces/default/configmaps").await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn what_is_counted_for_a_quota_holds_up_no_other_namespace() {
    let h = Harness::new().await;
    for namespace in ["counted", "other"] {
        h.post("/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await.expect(201);
    }
    let hard = json!({"requests.cpu": "100", "count/configmaps": COUNT + 3});
    h.post("/api/v1/namespaces/counted/resourcequotas", json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}))
        .await
        .expect(201);
    let pod = |name: &str| {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "counted", "uid": name,
            "annotations": {"a": "x".repeat(LARGE)}}, "spec": {"containers": [container]}})
    };
    stored(&h, "/core/pods/counted/", COUNT, pod).await;
    let mut small = pod("small");
    small["metadata"] = json!({"name": "small"});
    let turn = AtomicUsize::new(0);
    let (counted, other) = tokio::join!(
        async {
            h.post("/api/v1/namespaces/counted/pods", small).await.expect(201);
            turn.fetch_add(1, Relaxed)
        },
        async {
            h.post("/api/v1/namespaces/other/configmaps", json!({"metadata": {"name": "m"}})).await.expect(201);
            turn.fetch_add(1, Relaxed)
        }
    );
    assert!(other < counted, "who has no quota waits for nobody's");
    stored(&h, "/core/configmaps/counted/", COUNT, map).await;
    let make = |name: &str| h.post("/api/v1/namespaces/counted/configmaps", json!({"metadata": {"name": name}}));
    make("one").await.expect(201);
    make("two").await.expect(201);
    let refused = make("three").await.failure(403);
    assert!(refused.contains("limited: count/configmaps="), "{refused}");
}

#[tokio::test]
async fn budgets_that_are_read_for_an_eviction_hold_up_nobody() {
    let h = Harness::new().await;
    let budget = |name: &str| {
        let selector = json!({"matchLabels": {"none": "of them"}});
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name,
            "namespace": "default", "uid": name, "annotations": {"a": "x".repeat(LARGE)}}, "spec": {"selector": selector}})
    };
    stored(&h, "/policy/poddisruptionbudgets/default/", COUNT, budget).await;
    stored(&h, "/core/pods/default/", 1, |name| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}})
    })
    .await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "large000"}});
    let evicted = h.post("/api/v1/namespaces/default/pods/large000/eviction?dryRun=All", eviction);
    let (turns, evicted) = turns_of_others(evicted).await;
    evicted.expect(201);
    assert!(turns >= COUNT, "{turns}");
}
