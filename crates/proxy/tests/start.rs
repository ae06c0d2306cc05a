//! Before the first table nobody is unknown: requests wait.

mod support;

use std::time::Duration;

use http::StatusCode;
use knoll_proxy::Config;
use support::*;

fn spawn_get(world: &World) -> tokio::task::JoinHandle<Answer> {
    let external = world.external;
    tokio::spawn(async move { Client1::open(external).await.get("/").await })
}

fn early(world: &World) -> f64 {
    number(&world.gateway, "gateway_requests_early", None)
}

#[tokio::test]
async fn requests_before_the_first_table_are_answered_by_it() {
    let world = begin(config(), None);
    let all: Vec<_> = (0..20).map(|_| spawn_get(&world)).collect();
    let local = world.local;
    let inside = tokio::spawn(async move {
        let mut asked = request("/");
        asked.headers_mut().insert("host", "rev.ns.svc.cluster.local".parse().expect("host"));
        Answer::read(Client1::open(local).await.send(asked).await).await
    });
    until(|| early(&world) == 21.0).await;
    world.publish(table(vec![revision("rev", &[saying("hello").await])])).await;
    for answer in all.into_iter().chain([inside]) {
        let answer = soon(answer).await.expect("no panic");
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "hello"));
    }
    assert_eq!(early(&world), 0.0);
}

#[tokio::test]
async fn a_host_is_unknown_only_by_a_table() {
    let world = begin(config(), None);
    let waiting = spawn_get(&world);
    until(|| early(&world) == 1.0).await;
    world.publish(table(vec![])).await;
    // The host is listed, though nothing stands behind it; a stranger is not.
    assert_eq!(soon(waiting).await.expect("no panic").status, StatusCode::SERVICE_UNAVAILABLE);
    let answer = talk(world.external, "GET / HTTP/1.1\r\nhost: nobody.test\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn waiting_for_the_first_table_is_bounded_in_number_and_time() {
    let brief = Config { early_requests: 2, early_timeout: Duration::from_millis(200), ..config() };
    let world = begin(brief, None);
    let patient: Vec<_> = (0..2).map(|_| spawn_get(&world)).collect();
    until(|| early(&world) == 2.0).await;
    for answer in patient.into_iter().chain([spawn_get(&world)]) {
        let answer = soon(answer).await.expect("no panic");
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.body, "the gateway has just started and knows no routes yet");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    assert_eq!(number(&world.gateway, "gateway_own_responses", Some("starting")), 3.0);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_table_frees_its_place() {
    let world = begin(config(), None);
    let waiting = spawn_get(&world);
    until(|| early(&world) == 1.0).await;
    waiting.abort();
    until(|| early(&world) == 0.0).await;
}

#[tokio::test]
async fn a_gateway_without_a_table_is_alive_and_not_ready() {
    let world = begin(config(), None);
    let mut asked = request("/");
    asked.headers_mut().insert("user-agent", "kube-probe/1.35".parse().expect("agent"));
    let answer = Answer::read(world.http1().await.send(asked).await).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}
