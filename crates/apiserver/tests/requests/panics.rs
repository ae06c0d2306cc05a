//! A panic costs one request.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use knoll_apiserver::{
    Status,
    node_backend::{ContainerRef, ExecRequest, ExecStreams, LogRequest, NodeBackend, PortStream},
};
use serde_json::{Value, json};

use crate::{
    definitions::{DEFINITIONS, THINGS, definition},
    mines,
    support::{Harness, config_map, pod},
};

/// A machine whose every answer panics.
struct Broken;

impl NodeBackend for Broken {
    fn logs(&self, _: LogRequest) -> BoxFuture<'_, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
        Box::pin(async { panic!("no logs today") })
    }

    fn exec(&self, _: ExecRequest) -> BoxFuture<'_, Result<ExecStreams, Status>> {
        panic!("no commands today")
    }

    fn connect(&self, _: ContainerRef, _: u16) -> BoxFuture<'_, Result<PortStream, Status>> {
        panic!("no ports today")
    }
}

#[tokio::test]
async fn a_request_that_panics_is_answered_counted_and_leaves_the_others_alone() {
    let h = Harness::with_node(Arc::new(Broken)).await;
    h.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    h.send("PATCH", "/api/v1/namespaces/default/pods/p", json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    h.post("/api/v1/namespaces/default/pods/p/binding", json!({"target": {"name": "n"}})).await.expect(201);
    for round in 1..=2 {
        let answer = h.get("/api/v1/namespaces/default/pods/p/log").await;
        let id = answer.headers["audit-id"].to_str().unwrap().to_owned();
        let message = answer.failure(500);
        assert!(message.contains("failed unexpectedly") && message.contains(&id), "{message}");
        assert_eq!(h.server.counters().panics.get(), round);
        let maps = "/api/v1/namespaces/default/configmaps";
        h.post(maps, config_map(&format!("m{round}"), json!({}))).await.expect(201);
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_definition_whose_end_panics_is_ended_all_the_same() {
    let h = Harness::new().await;
    h.post(DEFINITIONS, definition()).await.expect(201);
    h.post(THINGS, json!({"metadata": {"name": "a"}})).await.expect(201);
    mines::arm("finish a definition", 2);
    let path = format!("{DEFINITIONS}/things.example.com");
    h.send("DELETE", &path, Value::Null).await.expect(200);
    until("it is gone", || async { h.get(&path).await.code == 404 }).await;
    assert_eq!((mines::left(), h.server.counters().panics.get()), (0, 2));
}

#[tokio::test]
async fn a_quota_whose_count_panics_is_counted_again_and_left_alone_when_it_keeps_panicking_until_something_changes() {
    let h = Harness::new().await;
    mines::arm("count for a quota", 2);
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5"}}});
    h.post(quotas, quota).await.expect(201);
    let used = async || h.get(&format!("{quotas}/q")).await.expect(200)["status"]["used"]["pods"].clone();
    until("it is counted", || async { used().await == "0" }).await;
    assert_eq!((mines::left(), h.server.counters().panics.get()), (0, 2));

    mines::arm("count for a quota", 4);
    h.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    until("it was tried three times", || async { mines::left() == 1 }).await;
    // An hour by the clock that tries are timed with, every timer in between included.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    tokio::time::resume();
    assert_eq!(mines::left(), 1, "it is left alone");
    mines::arm("count for a quota", 0);
    h.post("/api/v1/namespaces/default/pods", pod("r")).await.expect(201);
    until("it is counted", || async { used().await == "2" }).await;
    assert_eq!(h.server.counters().panics.get(), 5);
}

#[tokio::test]
async fn letting_events_go_panics_and_goes_on_a_minute_later() {
    let h = Harness::new().await;
    let event = json!({"metadata": {"name": "old"}, "type": "Normal", "reason": "R", "message": "m",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "lastTimestamp": "2026-01-01T00:00:00Z"});
    let events = "/api/v1/namespaces/default/events";
    h.post(events, event).await.expect(201);
    // When it was made counts as well as when it was last seen.
    let key = "/core/events/default/old";
    let stored: Value = serde_json::from_slice(&h.store.get(key).unwrap().value).unwrap();
    let mut aged = stored;
    aged["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let expect = knoll_store::Expect::Any;
    h.store.put(key, aged.to_string().into_bytes().into(), expect, knoll_store::Durability::Relaxed).await.unwrap();
    mines::arm("let Events go", 2);
    tokio::time::pause();
    for minute in 0..3 {
        assert!(h.store.get(key).is_some(), "it is there after {minute} minutes");
        tokio::time::advance(Duration::from_secs(60)).await;
        // What looks and writes has threads of its own.
        tokio::time::resume();
        until("the minute's look is done", || async {
            mines::left() == 2_u32.saturating_sub(minute + 1) && (minute < 2 || h.store.get(key).is_none())
        })
        .await;
        tokio::time::pause();
    }
    assert_eq!((mines::left(), h.server.counters().panics.get()), (0, 2));
}

#[tokio::test]
async fn a_definition_and_settings_that_cannot_be_taken_in_cost_themselves_until_they_change() {
    let h = Harness::new().await;
    mines::arm("serve a definition", 2);
    h.post(DEFINITIONS, definition()).await.expect(201);
    let path = format!("{DEFINITIONS}/things.example.com");
    for round in 1..=2 {
        assert_eq!(h.get(THINGS).await.code, 404);
        assert_eq!(h.server.counters().panics.get(), round);
        h.get("/api/v1/namespaces/default/configmaps").await.expect(200);
        h.send("PATCH", &path, json!({"metadata": {"labels": {"round": round.to_string()}}})).await.expect(200);
    }
    h.get(THINGS).await.expect(200);

    mines::arm("read the configuration", 2);
    let defaults = "/api/v1/namespaces/knative-serving/configmaps/config-defaults";
    let timeout = async |name: &str| {
        let service = json!({"metadata": {"name": name}, "spec": {"template": {"spec": {"containers": [{"image": "example.com/app"}]}}}});
        let made = h.post("/apis/serving.knative.dev/v1/namespaces/default/services", service).await.expect(201);
        made["spec"]["template"]["spec"]["timeoutSeconds"].clone()
    };
    for (round, wanted) in [("41", 300), ("42", 300), ("43", 43)] {
        h.send("PATCH", defaults, json!({"data": {"revision-timeout-seconds": round}})).await.expect(200);
        assert_eq!(timeout(&format!("s{round}")).await, wanted, "{round}");
    }
    assert_eq!((mines::left(), h.server.counters().panics.get()), (0, 4));
}
