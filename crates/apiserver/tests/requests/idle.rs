//! An hour in which nothing of a kind changes.

use std::time::Duration;

use crate::support::{Harness, config_map};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// Writes so much that the store forgets what came before.
async fn forget(h: &Harness, name: &str) {
    let data = "x".repeat(700_000);
    for at in 0..80 {
        let secret = json!({"metadata": {"name": format!("{name}-{at}")}, "stringData": {"k": data}});
        h.post(SECRETS, secret).await.expect(201);
    }
}

#[tokio::test]
async fn a_bookmark_says_how_far_the_store_is() {
    let h = Harness::new().await;
    let begun = h.store.revision();
    let path = format!("{MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={begun}&timeoutSeconds=3600");
    let mut events = h.watch(&path).await;
    forget(&h, "a").await;
    // Somebody who knows only the last event of this kind must list again by now.
    let mut late = h.watch(&format!("{MAPS}?watch=true&resourceVersion={begun}")).await;
    assert_eq!(late.next().await.unwrap()["object"]["code"], 410);
    let now = h.store.revision();
    tokio::time::pause();
    let mut last = 0;
    while let Some(event) = events.next_within(Duration::from_secs(7200)).await {
        assert_eq!(event["type"], "BOOKMARK");
        last = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        assert!(last >= now);
    }
    tokio::time::resume();
    let mut events = h.watch(&format!("{MAPS}?watch=true&resourceVersion={last}")).await;
    h.post(MAPS, config_map("b", json!({}))).await.expect(201);
    assert_eq!(events.brief().await, "ADDED b");
}

#[tokio::test]
async fn a_bookmark_comes_after_every_event_it_covers() {
    let h = Harness::new().await;
    let begun = h.store.revision();
    let path = format!("{MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={begun}&timeoutSeconds=1");
    let mut events = h.watch(&path).await;
    for at in 0..50 {
        h.post(MAPS, config_map(&format!("m{at}"), json!({}))).await.expect(201);
        h.post(SECRETS, json!({"metadata": {"name": format!("s{at}")}})).await.expect(201);
    }
    let revision =
        |event: &Value| -> u64 { event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap() };
    let (mut seen, mut added) = (begun, 0);
    while let Some(event) = events.next().await {
        assert!(revision(&event) >= seen, "in order");
        seen = revision(&event);
        added += usize::from(event["type"] == "ADDED");
    }
    let missing = h.get(&format!("{MAPS}?resourceVersion={seen}&resourceVersionMatch=Exact")).await.expect(200);
    let there =
        missing["items"].as_array().unwrap().iter().filter(|m| m["metadata"]["name"] != "kube-root-ca.crt").count();
    assert_eq!(added, there, "everything up to the last bookmark was sent");
}

#[tokio::test]
async fn a_watch_in_which_something_always_happens_ends_on_time() {
    let h = Harness::new().await;
    let path = format!("{MAPS}?watch=true&resourceVersion={}&timeoutSeconds=1", h.store.revision());
    let mut events = h.watch(&path).await;
    let ended = tokio::time::timeout(Duration::from_secs(30), async {
        for at in 0.. {
            h.post(MAPS, config_map(&format!("m{at}"), json!({}))).await.expect(201);
            if events.next().await.is_none() {
                return;
            }
        }
    });
    ended.await.expect("the watch ends");
}

#[tokio::test]
async fn a_watch_from_a_revision_that_does_not_exist_yet_is_refused() {
    let h = Harness::new().await;
    let status = h.get(&format!("{MAPS}?watch=true&resourceVersion=999999")).await.expect(504);
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}
