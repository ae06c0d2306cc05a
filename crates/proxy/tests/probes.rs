//! Requests that ask about the network.

mod support;

use std::sync::Arc;

use http::StatusCode;
use knoll_api::table::Host;
use support::*;

async fn probe(world: &World, headers: &[(&'static str, &str)]) -> Answer {
    let mut asked = request("/healthz");
    for (name, value) in headers {
        asked.headers_mut().insert(*name, value.parse().expect("value"));
    }
    Answer::read(world.http1().await.send(asked).await).await
}

#[tokio::test]
async fn a_network_probe_reads_its_hash_back() {
    let world = world(table(vec![revision("rev", &[])]));
    let echoed = probe(&world, &[("k-network-probe", "probe"), ("k-network-hash", "abc")]).await;
    assert_eq!((echoed.status, echoed.headers["k-network-hash"].as_bytes()), (StatusCode::OK, &b"abc"[..]));
    assert_eq!(probe(&world, &[("k-network-probe", "probe")]).await.status, StatusCode::BAD_REQUEST);
    let stranger = [("k-network-probe", "probe"), ("k-network-hash", "abc"), ("host", "nobody.test")];
    assert_eq!(probe(&world, &stranger).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_overriding_probe_reads_the_hash_of_the_table() {
    let mut routes = table(vec![revision("rev", &[])]);
    let mut hashed = Host::clone(&routes.external["hello.test"]);
    hashed.paths[0].append_headers = vec![("K-Network-Hash".into(), "ep-123".into())];
    routes.external.insert("hello.test".into(), Arc::new(hashed));
    let world = world(routes);
    let known = probe(&world, &[("k-network-probe", "probe"), ("k-network-hash", "override")]).await;
    assert_eq!(known.headers["k-network-hash"], "ep-123");
}

#[tokio::test]
async fn the_gateway_answers_for_activator_and_queue() {
    let world = world(table(vec![revision("rev", &[])]));
    assert_eq!(probe(&world, &[("k-network-probe", "activator")]).await.body, "activator");
    assert_eq!(probe(&world, &[("k-network-probe", "queue")]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    world.gateway.instance_up(key("rev"), saying("hello").await);
    assert_eq!(probe(&world, &[("k-network-probe", "queue")]).await.body, "queue");
    let odd = probe(&world, &[("k-network-probe", "what")]).await;
    assert_eq!((odd.status, odd.body.as_str()), (StatusCode::BAD_REQUEST, "unexpected probe header value: what"));
    assert_eq!(probe(&world, &[("user-agent", "kube-probe/1.35")]).await.status, StatusCode::OK);
}
