//! Plain HTTP/1.1: what arrives, what comes back, and what the gateway says itself.

mod support;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use knoll_api::table::{Host, Path, Split};
use knoll_proxy::Config;
use std::sync::Arc;
use support::*;

/// An instance that tells what it got.
async fn mirror() -> knoll_api::table::Instance {
    instance(|request| async move {
        let (parts, body) = request.into_parts();
        let mut text = format!("{} {}\n", parts.method, parts.uri);
        for (name, value) in &parts.headers {
            text += &format!("{name}: {}\n", value.to_str().expect("text"));
        }
        let body = body.collect().await.expect("body").to_bytes();
        text += &format!("\n{}", String::from_utf8_lossy(&body));
        Response::builder()
            .header("x-mirror", "yes")
            .header("connection", "x-gone")
            .header("x-gone", "1")
            .body(full(text))
            .expect("response")
    })
    .await
}

#[tokio::test]
async fn requests_and_answers_pass_whole() {
    let world = world(table(vec![revision("rev", &[mirror().await])]));
    let mut client = world.http1().await;
    let request = Request::builder()
        .method(Method::POST)
        .uri("/a/b?c=d")
        .header("host", "hello.test")
        .header("x-mine", "1")
        .header("knative-serving-revision", "spoofed")
        .body(full("the body"))
        .expect("request");
    let answer = Answer::read(client.send(request).await).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["x-mirror"], "yes");
    assert!(!answer.headers.contains_key("x-gone"));
    let lines: Vec<_> = answer.body.lines().collect();
    assert_eq!(lines[0], "POST /a/b?c=d");
    for wanted in ["host: hello.test", "x-mine: 1", "x-forwarded-for: 127.0.0.1", "content-length: 8", "the body"] {
        assert!(lines.contains(&wanted), "{wanted} in {lines:?}");
    }
    assert!(!answer.body.contains("spoofed"));
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let world = world(table(vec![revision("rev", &[saying("hello").await])]));
    let mut client = world.http1().await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.body, "hello");
    }
    assert_eq!(world.gateway.connections(), 1);
}

#[tokio::test]
async fn a_chunked_body_of_unknown_length_passes() {
    let world = world(table(vec![revision("rev", &[mirror().await])]));
    let chunked = "POST / HTTP/1.1\r\nhost: hello.test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
        3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    let answer = talk(world.external, chunked).await;
    assert!(answer.contains("\r\n\r\nPOST /\n"), "{answer}");
    assert!(answer.ends_with("\nabcdef"), "{answer}");
}

#[tokio::test]
async fn a_head_request_learns_the_length_alone() {
    let world = world(table(vec![revision("rev", &[saying("hello").await])]));
    let mut client = world.http1().await;
    let mut head = request("/");
    *head.method_mut() = Method::HEAD;
    let answer = Answer::read(client.send(head).await).await;
    assert_eq!((answer.headers["content-length"].as_bytes(), answer.body.as_str()), (&b"5"[..], ""));
    assert_eq!(client.get("/").await.body, "hello", "the connection is still in step");
}

#[tokio::test]
async fn events_arrive_as_they_happen() {
    let (sender, receiver) = tokio::sync::mpsc::channel::<&'static str>(1);
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let stream = instance(move |_| {
        let receiver = receiver.clone();
        async move {
            let events = futures_util::stream::unfold(receiver, |receiver| async move {
                let text = receiver.lock().await.recv().await?;
                Some((Ok(http_body::Frame::data(bytes::Bytes::from_static(text.as_bytes()))), receiver))
            });
            Response::builder().header("content-type", "text/event-stream").body(frames(events)).expect("response")
        }
    })
    .await;
    let world = world(table(vec![revision("rev", &[stream])]));
    let response = world.http1().await.send(request("/")).await;
    let mut body = response.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        sender.send(event).await.expect("instance listens");
        let frame = soon(body.frame()).await.expect("not the end").expect("whole");
        assert_eq!(frame.into_data().expect("data"), event);
    }
    drop(sender);
    assert!(soon(body.frame()).await.is_none());
}

#[tokio::test]
async fn a_client_that_expects_100_hears_it_before_it_sends_the_body() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = world(table(vec![revision("rev", &[mirror().await])]));
    let mut stream = tokio::net::TcpStream::connect(world.external).await.expect("gateway listens");
    let head =
        "POST / HTTP/1.1\r\nhost: hello.test\r\nexpect: 100-continue\r\ncontent-length: 4\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut go_on = [0; 25];
    soon(stream.read_exact(&mut go_on)).await.expect("an answer");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.expect("written");
    let mut rest = String::new();
    soon(stream.read_to_string(&mut rest)).await.expect("an answer");
    assert!(rest.starts_with("HTTP/1.1 200 OK") && rest.ends_with("\nbody"), "{rest}");
}

#[tokio::test]
async fn a_client_that_is_answered_before_it_has_sent_everything_reads_the_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = world(table(vec![revision("rev", &[])]));
    let mut stream = tokio::net::TcpStream::connect(world.external).await.expect("gateway listens");
    let length = 4 << 20;
    let head = format!("POST / HTTP/1.1\r\nhost: nobody.test\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    soon(stream.write_all(&vec![0; length])).await.expect("nobody refuses it");
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn an_unknown_host_is_told_so() {
    let world = world(table(vec![revision("rev", &[])]));
    let mut client = world.http1().await;
    let mut stranger = request("/");
    stranger.headers_mut().insert("host", "nobody.test".parse().expect("host"));
    let answer = Answer::read(client.send(stranger).await).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.body.contains("nobody.test"), "{}", answer.body);
}

#[tokio::test]
async fn inner_names_are_answered_inside_only() {
    let mut routes = table(vec![revision("rev", &[saying("inside").await])]);
    routes.local.insert("hello.ns.svc.cluster.local".into(), host(&[("rev", 100)]));
    let world = world(routes);
    for (name, address, status) in [
        ("hello.ns.svc.cluster.local", world.local, StatusCode::OK),
        ("rev.ns.svc.cluster.local", world.local, StatusCode::OK),
        ("hello.test", world.local, StatusCode::OK),
        ("hello.ns.svc.cluster.local", world.external, StatusCode::NOT_FOUND),
        ("rev.ns", world.external, StatusCode::NOT_FOUND),
    ] {
        let mut client = Client1::open(address).await;
        let mut inner = request("/");
        inner.headers_mut().insert("host", name.parse().expect("host"));
        assert_eq!(client.send(inner).await.status(), status, "{name}");
    }
}

#[tokio::test]
async fn a_failed_revision_says_why() {
    let failed = Some("ContainerMissing: no such image".to_owned());
    let world = world(table(vec![support::Revision { failure: failed, ..revision("rev", &[]) }]));
    let answer = world.get().await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.body, "ContainerMissing: no such image");
}

#[tokio::test]
async fn plain_http_is_sent_to_https_when_the_host_wants_it() {
    let mut routes = table(vec![revision("rev", &[])]);
    let secure = Host { redirect_to_https: true, ..Host::clone(&routes.external["hello.test"]) };
    routes.external.insert("hello.test".into(), Arc::new(secure));
    let world = world(routes);
    let answer = world.http1().await.get("/a?b").await;
    assert_eq!(answer.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(answer.headers["location"], "https://hello.test/a?b");
}

#[tokio::test]
async fn a_mapped_domain_reaches_its_service_and_keeps_its_name() {
    let mut routes = table(vec![revision("rev", &[mirror().await])]);
    routes.local.insert("hello.ns.svc.cluster.local".into(), host(&[("rev", 100)]));
    let mapped = Path {
        prefix: "/".into(),
        rewrite_host: Some("hello.ns.svc.cluster.local".into()),
        splits: vec![Split { percent: 100, service: key("placeholder"), append_headers: Vec::new() }],
        ..Path::default()
    };
    routes.external.insert("mapped.test".into(), Arc::new(Host { redirect_to_https: false, paths: vec![mapped] }));
    let world = world(routes);
    let mut client = world.http1().await;
    let mut asked = request("/");
    asked.headers_mut().insert("host", "mapped.test".parse().expect("host"));
    let answer = Answer::read(client.send(asked).await).await;
    assert!(answer.body.contains("\nhost: mapped.test\n"), "{}", answer.body);
}

#[tokio::test]
async fn bodies_and_heads_have_a_most() {
    let config = Config { max_body_bytes: Some(10), max_header_bytes: 8192, ..config() };
    let world = world_with(config, table(vec![revision("rev", &[mirror().await])]));
    let announced = "POST / HTTP/1.1\r\nhost: hello.test\r\nconnection: close\r\ncontent-length: 11\r\n\r\n";
    assert!(talk(world.external, announced).await.starts_with("HTTP/1.1 413 "));
    let surprising = "POST / HTTP/1.1\r\nhost: hello.test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
        b\r\nabcdefghijk\r\n0\r\n\r\n";
    assert!(talk(world.external, surprising).await.starts_with("HTTP/1.1 413 "));
    let long = format!("GET / HTTP/1.1\r\nhost: hello.test\r\nx-long: {}\r\n\r\n", "a".repeat(10_000));
    assert!(talk(world.external, &long).await.starts_with("HTTP/1.1 431 "));
    let fitting = "POST / HTTP/1.1\r\nhost: hello.test\r\nconnection: close\r\ncontent-length: 10\r\n\r\nabcdefghij";
    assert!(talk(world.external, fitting).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn one_client_too_many_is_turned_away() {
    let config = Config { max_connections: 2, ..config() };
    let world = world_with(config, table(vec![revision("rev", &[saying("hello").await])]));
    let (mut one, mut two) = (world.http1().await, world.http1().await);
    assert_eq!((one.get("/").await.body, two.get("/").await.body), ("hello".into(), "hello".into()));
    let third = talk(world.external, "").await;
    assert!(third.starts_with("HTTP/1.1 503 ") && third.ends_with("too many connections"), "{third}");
    drop(one);
    until(|| world.gateway.connections() == 1).await;
    assert_eq!(world.get().await.body, "hello");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_hung_up_on() {
    let config = Config { header_read_timeout: std::time::Duration::from_millis(50), ..config() };
    let world = world_with(config, table(vec![revision("rev", &[])]));
    assert_eq!(talk(world.external, "").await, "");
    let slow = talk(world.external, "GET / HTTP/1.1\r\nhost: hel").await;
    assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 408 "), "{slow}");
}

#[tokio::test]
async fn outside_clients_cannot_say_where_they_came_from_and_pods_can() {
    let world = world(table(vec![revision("rev", &[mirror().await])]));
    let claim = || {
        let mut claim = request("/");
        for (name, value) in
            [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https"), ("forwarded", "for=6.6.6.6")]
        {
            claim.headers_mut().insert(name, value.parse().expect("value"));
        }
        claim
    };
    let outside = Answer::read(world.http1().await.send(claim()).await).await.body;
    assert!(!outside.contains("6.6.6.6") && !outside.contains("https"), "{outside}");
    assert!(outside.contains("x-forwarded-for: 127.0.0.1\n"), "{outside}");
    let inside = Answer::read(Client1::open(world.local).await.send(claim()).await).await.body;
    assert!(inside.contains("x-forwarded-for: 6.6.6.6, 127.0.0.1\n"), "{inside}");
}

#[tokio::test]
async fn a_proxy_in_front_is_believed_when_the_gateway_is_told_of_it() {
    let world = world_with(Config { trusted_hops: 1, ..config() }, table(vec![revision("rev", &[mirror().await])]));
    let mut claim = request("/");
    claim.headers_mut().insert("x-forwarded-for", "6.6.6.6, 10.0.0.9".parse().expect("value"));
    let seen = Answer::read(world.http1().await.send(claim).await).await.body;
    assert!(seen.contains("x-forwarded-for: 10.0.0.9, 127.0.0.1\n"), "{seen}");
}
