//! What is sent again, and what is not.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, StatusCode};
use knoll_api::table::Instance;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

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

/// Answers one request a connection and closes it; the semaphore counts closed connections.
async fn one_each() -> (Instance, Arc<Semaphore>) {
    let closed = Arc::new(Semaphore::new(0));
    let told = closed.clone();
    let instance = raw_instance(move |mut stream| {
        let told = told.clone();
        async move {
            if read_head(&mut stream).await.is_some() {
                // The body of a POST: closing with it unread would reset the connection.
                stream.read_exact(&mut [0; 4]).await.expect("a body");
                stream.write_all(OK).await.expect("gateway listens");
                drop(stream);
                told.add_permits(1);
            }
        }
    })
    .await;
    (instance, closed)
}

#[tokio::test]
async fn a_connection_the_instance_has_closed_carries_no_request() {
    let (instance, closed) = one_each().await;
    let world = world(table(vec![revision("rev", &[instance])]));
    let mut client = world.http1().await;
    for round in 0..200 {
        let post = Request::post("/").header("host", "hello.test").body(full("body")).expect("request");
        assert_eq!(Answer::read(client.send(post).await).await.status, StatusCode::OK, "request {round}");
        soon(closed.acquire()).await.expect("open").forget();
    }
}

#[tokio::test]
async fn a_kept_connection_is_used_no_longer_than_its_instance_promised() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let brief = raw_instance(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let keep = if head.starts_with("GET /brief") { "keep-alive: timeout=1\r\n" } else { "" };
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{keep}\r\nok");
                stream.write_all(answer.as_bytes()).await.expect("gateway listens");
            }
        }
    })
    .await;
    let world = world(table(vec![revision("rev", &[brief])]));
    let mut client = world.http1().await;
    for path in ["/", "/", "/brief"] {
        let answer = client.get(path).await;
        assert!(!answer.headers.contains_key("keep-alive"), "the hint is for one hop");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    client.get("/").await;
    assert_eq!(connections.load(Ordering::SeqCst), 2);
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
async fn a_harmless_request_is_sent_again_when_a_kept_connection_breaks() {
    let (instance, seen) = breaks_on_second().await;
    let world = world(table(vec![revision("rev", &[instance])]));
    let mut client = world.http1().await;
    assert_eq!(client.get("/").await.body, "ok");
    assert_eq!(client.get("/").await.body, "ok");
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_request_with_an_effect_is_never_sent_twice() {
    let (instance, seen) = breaks_on_second().await;
    let world = world(table(vec![revision("rev", &[instance])]));
    let mut client = world.http1().await;
    assert_eq!(client.get("/").await.body, "ok");
    let post = Request::post("/").header("host", "hello.test").body(full("pay")).expect("request");
    let answer = Answer::read(client.send(post).await).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_with_a_key_for_its_effect_is_sent_again() {
    let (instance, seen) = breaks_on_second().await;
    let world = world(table(vec![revision("rev", &[instance])]));
    let mut client = world.http1().await;
    assert_eq!(client.get("/").await.body, "ok");
    let mut keyed = request("/");
    *keyed.method_mut() = http::Method::DELETE;
    keyed.headers_mut().insert("idempotency-key", http::HeaderValue::from_static("1"));
    assert_eq!(Answer::read(client.send(keyed).await).await.body, "ok");
    assert_eq!(seen.load(Ordering::SeqCst), 3);
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
