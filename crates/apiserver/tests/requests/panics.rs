//! A panic costs one request.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use knoll_apiserver::{
    Status,
    node_backend::{ContainerRef, ExecRequest, ExecStreams, LogRequest, NodeBackend, PortStream},
};
use serde_json::json;

use crate::support::{Harness, config_map, pod};

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
