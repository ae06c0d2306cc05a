//! Requests that ask about the network.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use knoll_api::table::Host;
use support::*;

async fn probe(world: &World, headers: &[(&'static str, &str)]) -> Answer {
    probe_at(world.external, headers).await
}

async fn probe_at(address: SocketAddr, headers: &[(&'static str, &str)]) -> Answer {
    let mut asked = request("/healthz");
    for (name, value) in headers {
        asked.headers_mut().insert(*name, value.parse().expect("value"));
    }
    Answer::read(Client1::open(address).await.send(asked).await).await
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
    let probe = |headers: [(&'static str, &'static str); 1]| {
        let local = world.local;
        async move { probe_at(local, &headers).await }
    };
    assert_eq!(probe([("k-network-probe", "activator")]).await.body, "activator");
    assert_eq!(probe([("k-network-probe", "queue")]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    world.gateway.instance_up(key("rev"), saying("hello").await);
    assert_eq!(probe([("k-network-probe", "queue")]).await.body, "queue");
    let odd = probe([("k-network-probe", "what")]).await;
    assert_eq!((odd.status, odd.body.as_str()), (StatusCode::BAD_REQUEST, "unexpected probe header value: what"));
    assert_eq!(probe([("user-agent", "kube-probe/1.35")]).await.status, StatusCode::OK);
    assert_eq!(probe([("k-kubelet-probe", "queue")]).await.body, "ok");
}

#[tokio::test]
async fn from_outside_the_platforms_headers_mean_nothing_but_the_configuration_may_be_asked_for() {
    let mirror = instance(|request| async move {
        let leaked = request.headers().keys().any(|name| name.as_str().starts_with("k-"));
        http::Response::new(full(if leaked { "leaked" } else { "the app" }))
    })
    .await;
    let world = world(table(vec![revision("rev", &[mirror])]));
    for header in [("k-network-probe", "activator"), ("k-network-probe", "queue"), ("k-kubelet-probe", "queue")] {
        assert_eq!(probe(&world, &[header]).await.body, "the app", "{header:?}");
    }
}
