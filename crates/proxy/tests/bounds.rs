//! What one client can hold, for how long, and what it is told at a bound.

#[path = "support/frames.rs"]
mod frames;
mod support;

use std::time::Duration;

use bytes::Bytes;
use frames::{begin, frame, more_headers, taken_back};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use knoll_api::table::Instance;
use knoll_proxy::Config;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SHORT: Duration = Duration::from_millis(200);
const HOUR: Duration = Duration::from_secs(3600);

/// An instance that sends without end, as fast as it is read, to all but `/brief`.
async fn endless() -> Instance {
    raw_instance(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            if head.starts_with("GET /brief") {
                let brief = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                if stream.write_all(brief).await.is_err() {
                    return;
                }
                continue;
            }
            if stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.is_err() {
                return;
            }
            let mut chunk = format!("{:x}\r\n", 16384).into_bytes();
            chunk.extend([b'x'; 16384]);
            chunk.extend(b"\r\n");
            while stream.write_all(&chunk).await.is_ok() {}
        }
    })
    .await
}

/// A revision with one place, so that whoever holds it is noticed.
async fn one_place(timeout: Duration) -> World {
    one_place_with(config(), timeout).await
}

async fn one_place_with(config: Config, timeout: Duration) -> World {
    world_with(config, table(vec![Revision { timeout, limit: 1, ..revision("rev", &[endless().await]) }]))
}

/// Waits until the only place is free, and shows that it is.
async fn place_is_free(world: &World) {
    until(|| number(&world.gateway, "gateway_requests_in_flight", None) == 0.0).await;
    assert_eq!(world.http1().await.get("/brief").await.body, "ok");
}

#[tokio::test]
async fn a_client_that_does_not_read_gives_its_place_back_when_its_time_is_up() {
    let world = one_place(SHORT).await;
    let mut lazy = TcpStream::connect(world.external).await.expect("gateway listens");
    lazy.write_all(b"GET / HTTP/1.1\r\nhost: hello.test\r\n\r\n").await.expect("written");
    until(|| number(&world.gateway, "gateway_requests_in_flight", None) == 1.0).await;
    place_is_free(&world).await;
    assert_eq!(number(&world.gateway, "gateway_responses_expired", None), 1.0);
    drop(lazy);
}

#[tokio::test]
async fn a_stream_that_never_pauses_ends_when_its_time_is_up() {
    let world = one_place(SHORT).await;
    let answer = talk(world.external, "GET / HTTP/1.1\r\nhost: hello.test\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "));
    assert!(answer.trim_end().trim_end_matches("\r\n0").ends_with("activator request timeout"), "it says why it ends");
    place_is_free(&world).await;
}

#[tokio::test]
async fn a_pod_that_does_not_read_gives_its_place_back_as_well() {
    let world = one_place(SHORT).await;
    let mut lazy = TcpStream::connect(world.local).await.expect("gateway listens");
    lazy.write_all(b"GET / HTTP/1.1\r\nhost: rev.ns.svc\r\n\r\n").await.expect("written");
    until(|| number(&world.gateway, "gateway_requests_in_flight", None) == 1.0).await;
    place_is_free(&world).await;
    drop(lazy);
}

#[tokio::test]
async fn a_stream_of_http2_that_nobody_reads_gives_its_place_back() {
    let world = one_place(SHORT).await;
    let mut client = http2(world.external).await;
    let asked = Request::get("http://hello.test/").body(empty()).expect("request");
    // The head is taken, the body is not: its window fills and stays full.
    let unread = soon(client.send_request(asked)).await.expect("a head");
    place_is_free(&world).await;
    // Other streams of the connection live on.
    let asked = Request::get("http://hello.test/brief").body(empty()).expect("request");
    let other = soon(client.send_request(asked)).await.expect("an answer");
    assert_eq!(soon(other.into_body().collect()).await.expect("whole").to_bytes(), "ok");
    drop(unread);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    let world = one_place_with(Config { client_write_timeout: SHORT, ..config() }, HOUR).await;
    let mut lazy = TcpStream::connect(world.external).await.expect("gateway listens");
    lazy.write_all(b"GET / HTTP/1.1\r\nhost: hello.test\r\n\r\n").await.expect("written");
    until(|| number(&world.gateway, "gateway_clients_stalled", None) == 1.0).await;
    until(|| world.gateway.connections() == 0).await;
    place_is_free(&world).await;
}

#[tokio::test]
async fn a_client_that_reads_a_little_now_and_then_is_let_go_after_its_time() {
    let world = one_place_with(Config { client_write_timeout: SHORT, ..config() }, SHORT).await;
    let mut slow = TcpStream::connect(world.external).await.expect("gateway listens");
    slow.write_all(b"GET / HTTP/1.1\r\nhost: hello.test\r\n\r\n").await.expect("written");
    let mut some = vec![0; 4096];
    soon(async {
        // Enough to count as progress each time, never enough to finish.
        while world.gateway.connections() == 1 {
            if slow.read(&mut some).await.unwrap_or(0) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    until(|| world.gateway.connections() == 0).await;
}

#[tokio::test]
async fn a_request_that_its_client_gave_up_frees_its_place_in_line() {
    let world = world(table(vec![revision("rev", &[])]));
    let mut client = TcpStream::connect(world.external).await.expect("gateway listens");
    client.write_all(b"GET / HTTP/1.1\r\nhost: hello.test\r\n\r\n").await.expect("written");
    let waiting = || number(&world.gateway, "gateway_requests_waiting", None);
    until(|| waiting() == 1.0).await;
    drop(client);
    until(|| waiting() == 0.0).await;
    // A stream that is reset frees its place and leaves the connection.
    let mut streams = http2(world.external).await;
    let asked = Request::get("http://hello.test/").body(empty()).expect("request");
    let sent = tokio::spawn(streams.send_request(asked));
    until(|| waiting() == 1.0).await;
    sent.abort();
    until(|| waiting() == 0.0).await;
    assert_eq!(world.gateway.connections(), 1);
}

#[tokio::test]
async fn no_address_has_more_connections_than_its_share() {
    let config = Config { max_connections_per_address: 2, ..config() };
    let world = world_with(config, table(vec![revision("rev", &[saying("hello").await])]));
    let (mut one, mut two) = (world.http1().await, world.http1().await);
    assert_eq!((one.get("/").await.body, two.get("/").await.body), ("hello".into(), "hello".into()));
    let refused = talk(world.external, "").await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1\r\n"), "{refused}");
    assert_eq!(number(&world.gateway, "gateway_connections_refused", Some("address")), 1.0);
    drop(one);
    until(|| world.gateway.connections() == 1).await;
    assert_eq!(world.get().await.body, "hello");
}

#[tokio::test]
async fn no_more_requests_are_taken_in_than_the_gateway_may_hold() {
    let config = Config { threads: 1, max_requests: 2, ..config() };
    let world = world_with(config, table(vec![revision("rev", &[])]));
    let client = http2(world.external).await;
    let ask = || {
        let mut client = client.clone();
        tokio::spawn(async move {
            client.send_request(Request::get("http://hello.test/").body(empty()).expect("request")).await
        })
    };
    let held = [ask(), ask()];
    until(|| number(&world.gateway, "gateway_requests_waiting", None) == 2.0).await;
    let refused = Answer::read(soon(ask()).await.expect("no panic").expect("an answer")).await;
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "too many requests in flight")
    );
    assert_eq!(refused.headers["retry-after"], "1");
    held.iter().for_each(|held| held.abort());
}

fn head() -> Vec<u8> {
    frames::head("http", "hello.test", "/")
}

/// An HTTP/2 connection on a bare socket, past its preface.
async fn bare_http2(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.external).await.expect("gateway listens");
    begin(&mut stream).await;
    stream
}

/// Sends `attack` again and again until the gateway hangs up.
async fn until_hung_up(stream: TcpStream, attack: impl FnMut(u32) -> Vec<u8>) {
    let (read, write) = stream.into_split();
    soon(frames::until_hung_up(read, write, attack)).await;
}

#[tokio::test]
async fn a_flood_of_requests_taken_back_costs_its_connection() {
    let world = world(table(vec![revision("rev", &[])]));
    until_hung_up(bare_http2(&world).await, |round| taken_back(round, &head())).await;
    until(|| world.gateway.connections() == 0).await;
    assert_eq!(number(&world.gateway, "gateway_requests_in_flight", None), 0.0);
}

#[tokio::test]
async fn a_head_that_never_ends_costs_its_connection() {
    let world = world(table(vec![revision("rev", &[])]));
    let mut stream = bare_http2(&world).await;
    stream.write_all(&frame(1, 0x1, 1, &head())).await.expect("written");
    until_hung_up(stream, |_| more_headers().repeat(100)).await;
    until(|| world.gateway.connections() == 0).await;
}

/// Each is to be answered: an answer that its client does not take stops the reading, so that nothing piles up.
#[tokio::test]
async fn floods_of_settings_and_pings_pile_up_nothing() {
    let config = Config { client_write_timeout: SHORT, ..config() };
    let world = world_with(config, table(vec![revision("rev", &[saying("hello").await])]));
    for flood in [frame(4, 0, 0, &[]), frame(6, 0, 0, &[7; 8])] {
        let flood = flood.repeat(1000);
        let (mut read, mut write) = bare_http2(&world).await.into_split();
        let reading = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        for _ in 0..50 {
            soon(write.write_all(&flood)).await.expect("answered for as long as it is read");
        }
        assert_eq!(world.get().await.body, "hello");
        reading.abort();
        drop(write);
        // Unread, they come to a halt within what sockets hold, and their connection is let go.
        let mut lazy = bare_http2(&world).await;
        let mut sent = 0;
        while soon(lazy.write_all(&flood)).await.is_ok() {
            sent += flood.len();
            assert!(sent < 256 << 20, "{sent} bytes were taken, and none of the answers");
        }
        until(|| world.gateway.connections() == 0).await;
        assert_eq!(world.get().await.body, "hello");
    }
}

#[tokio::test]
async fn heads_beyond_the_bound_are_refused_by_name() {
    let world = world(table(vec![revision("rev", &[saying("hello").await])]));
    let long = format!("GET / HTTP/1.1\r\nhost: hello.test\r\nx-long: {}\r\n\r\n", "y".repeat(70_000));
    assert!(talk(world.external, &long).await.starts_with("HTTP/1.1 431 "));
    let many: String = (0..200).map(|at| format!("x-{at}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: hello.test\r\n{many}\r\n");
    assert!(talk(world.external, &many).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_head_that_trickles_in_is_given_up() {
    let config = Config { header_read_timeout: SHORT, ..config() };
    let world = world_with(config, table(vec![revision("rev", &[saying("hello").await])]));
    for begun in ["G", "GET / HTTP/1.1\r\nhost: hel"] {
        let mut stream = TcpStream::connect(world.external).await.expect("gateway listens");
        stream.write_all(begun.as_bytes()).await.expect("written");
        let mut rest = Vec::new();
        soon(stream.read_to_end(&mut rest)).await.expect("closed");
    }
    until(|| world.gateway.connections() == 0).await;
}

#[tokio::test]
async fn a_body_that_is_cut_by_its_client_reaches_nobody_as_whole() {
    let whole = instance(|request| async move {
        match request.into_body().collect().await {
            Ok(_) => http::Response::new(full("whole")),
            Err(_) => http::Response::new(full("cut")),
        }
    })
    .await;
    let world = world(table(vec![Revision { limit: 1, ..revision("rev", &[whole]) }]));
    let mut stream = TcpStream::connect(world.external).await.expect("gateway listens");
    stream.write_all(b"POST / HTTP/1.1\r\nhost: hello.test\r\ncontent-length: 100\r\n\r\nhalf").await.expect("written");
    until(|| number(&world.gateway, "gateway_requests_in_flight", None) == 1.0).await;
    drop(stream);
    until(|| number(&world.gateway, "gateway_requests_in_flight", None) == 0.0).await;
    let answer = world
        .http1()
        .await
        .send(Request::post("/").header("host", "hello.test").body(full(Bytes::from_static(b"x"))).expect("request"))
        .await;
    assert_eq!(Answer::read(answer).await.body, "whole");
}
