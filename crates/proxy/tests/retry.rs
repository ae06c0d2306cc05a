//! What is sent again, and what is not.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use knoll_api::table::Instance;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn an_instance_that_cannot_be_reached_is_passed_over() {
    for limit in [0, 1, 10] {
        let instances = [nobody().await, saying("ok").await, nobody().await];
        let world = world(table(vec![Revision { limit, ..revision("rev", &instances) }]));
        let mut client = world.http1().await;
        for _ in 0..20 {
            assert_eq!(client.get("/").await.body, "ok", "limit {limit}");
        }
    }
}

#[tokio::test]
async fn a_whole_body_survives_an_instance_that_cannot_be_reached() {
    let counting = instance(|request| async move {
        let body = http_body_util::BodyExt::collect(request.into_body()).await.expect("body").to_bytes();
        http::Response::new(full(body.len().to_string()))
    })
    .await;
    let instances = [nobody().await, counting];
    let world = world(table(vec![Revision { limit: 1, ..revision("rev", &instances) }]));
    let post = Request::post("/").header("host", "hello.test").body(full(vec![7; 300_000])).expect("request");
    assert_eq!(Answer::read(world.http1().await.send(post).await).await.body, "300000");
}

#[tokio::test]
async fn nobody_at_all_is_a_502() {
    let world = world(table(vec![revision("rev", &[nobody().await])]));
    let answer = world.get().await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.body.contains("refused"), "{}", answer.body);
}

#[tokio::test]
async fn an_announced_instance_that_is_not_there_is_forgotten() {
    let mut world = world(table(vec![revision("rev", &[])]));
    world.gateway.instance_up(key("rev"), nobody().await);
    let external = world.external;
    let waiting = tokio::spawn(async move { Client1::open(external).await.get("/").await });
    assert_eq!(soon(world.feeds.wakes.recv()).await, Some(key("rev")), "it is woken as if nothing was announced");
    world.gateway.instance_up(key("rev"), saying("ok").await);
    assert_eq!(soon(waiting).await.expect("no panic").body, "ok");
}

/// Answers one request a connection, then closes it when told; counts requests.
async fn one_each() -> (Instance, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let instance = raw_instance(move |mut stream| {
        let seen = counted.clone();
        async move {
            if read_head(&mut stream).await.is_some() {
                seen.fetch_add(1, Ordering::SeqCst);
                stream.write_all(OK).await.expect("gateway listens");
            }
        }
    })
    .await;
    (instance, seen)
}

#[tokio::test]
async fn a_kept_connection_the_instance_closed_is_never_noticed() {
    let (instance, seen) = one_each().await;
    let world = world(table(vec![revision("rev", &[instance])]));
    let mut client = world.http1().await;
    for _ in 0..50 {
        let post = Request::post("/").header("host", "hello.test").body(full("body")).expect("request");
        let answer = Answer::read(client.send(post).await).await;
        // A request that meets the very moment of closing may have been read: that is the client's to repeat.
        assert!([StatusCode::OK, StatusCode::BAD_GATEWAY].contains(&answer.status));
    }
    assert!(seen.load(Ordering::SeqCst) >= 45, "{seen:?}");
}

/// Answers the first request of a connection; reads the second and hangs up without a word.
async fn breaks_on_second() -> (Instance, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let instance = raw_instance(move |mut stream| {
        let seen = counted.clone();
        async move {
            read_head(&mut stream).await.expect("a request");
            seen.fetch_add(1, Ordering::SeqCst);
            stream.write_all(OK).await.expect("gateway listens");
            if read_head(&mut stream).await.is_some() {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    (instance, seen)
}

#[tokio::test]
async fn a_harmless_request_is_sent_again_when_an_idle_connection_breaks() {
    let (instance, seen) = breaks_on_second().await;
    let world = world(table(vec![revision("rev", &[instance])]));
    let mut client = world.http1().await;
    assert_eq!(client.get("/").await.body, "ok");
    // The time that makes a kept connection an idle one.
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(client.get("/").await.body, "ok");
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_request_with_an_effect_is_never_sent_twice() {
    let (instance, seen) = breaks_on_second().await;
    let world = world(table(vec![revision("rev", &[instance])]));
    let mut client = world.http1().await;
    assert_eq!(client.get("/").await.body, "ok");
    tokio::time::sleep(Duration::from_millis(250)).await;
    let post = Request::post("/").header("host", "hello.test").body(full("pay")).expect("request");
    let answer = Answer::read(client.send(post).await).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn nonsense_from_an_instance_is_a_502() {
    let nonsense = raw_instance(|mut stream| async move {
        if read_head(&mut stream).await.is_some() {
            stream.write_all(b"this is not http\r\n\r\n").await.expect("gateway listens");
            drop(stream.read(&mut [0]).await);
        }
    })
    .await;
    let world = world(table(vec![revision("rev", &[nonsense])]));
    assert_eq!(world.get().await.status, StatusCode::BAD_GATEWAY);
}
