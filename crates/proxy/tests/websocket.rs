//! Connections that leave HTTP.

mod support;

use std::time::{Duration, Instant};

use http::StatusCode;
use knoll_api::table::Instance;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Agrees to an upgrade and echoes from then on.
async fn echo() -> Instance {
    raw_instance(|mut stream| async move {
        let Some(head) = read_head(&mut stream).await else { return };
        let lower = head.to_ascii_lowercase();
        assert!(lower.contains("upgrade: websocket\r\n") && lower.contains("connection: upgrade\r\n"), "{head}");
        let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-accept: yes\r\n\r\n";
        stream.write_all(agreed.as_bytes()).await.expect("gateway listens");
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
    })
    .await
}

async fn upgrade(world: &World) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(world.external).await.expect("gateway listens");
    let asked = "GET /socket HTTP/1.1\r\nhost: hello.test\r\nconnection: keep-alive, Upgrade\r\n\
        upgrade: websocket\r\nsec-websocket-key: x\r\n\r\n";
    stream.write_all(asked.as_bytes()).await.expect("written");
    let head = soon(read_head(&mut stream)).await.expect("an answer");
    (stream, head)
}

#[tokio::test]
async fn bytes_flow_both_ways() {
    let world = world(table(vec![revision("rev", &[echo().await])]));
    let (mut stream, head) = upgrade(&world).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: yes\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    for _ in 0..100 {
        stream.write_all(b"ping").await.expect("open");
        let mut pong = [0; 4];
        soon(stream.read_exact(&mut pong)).await.expect("open");
        assert_eq!(&pong, b"ping");
    }
}

#[tokio::test]
async fn an_open_socket_holds_its_place_until_it_closes() {
    let limited = Revision { limit: 1, ..revision("rev", &[echo().await]) };
    let world = world(table(vec![limited]));
    let (stream, _) = upgrade(&world).await;
    let second = upgrade(&world);
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
    assert!(early.is_err(), "the place is taken");
    drop(stream);
    let (_stream, head) = second.await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

const SHORT: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3600);

/// Sends `ping` until the socket is cut.
async fn until_cut(stream: &mut TcpStream) {
    soon(async {
        let mut pong = [0; 4];
        loop {
            if stream.write_all(b"ping").await.is_err() || stream.read_exact(&mut pong).await.is_err() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_time_for_a_request_bounds_a_busy_socket() {
    let timed = Revision { timeout: SHORT, response_start: Some(HOUR), ..revision("rev", &[echo().await]) };
    let world = world(table(vec![timed]));
    let (mut stream, _) = upgrade(&world).await;
    until_cut(&mut stream).await;
}

#[tokio::test]
async fn agreeing_to_upgrade_is_the_start_of_an_answer() {
    let timed = Revision { timeout: HOUR, response_start: Some(SHORT), ..revision("rev", &[echo().await]) };
    let world = world(table(vec![timed]));
    let (mut stream, _) = upgrade(&world).await;
    let begun = Instant::now();
    while begun.elapsed() < 3 * SHORT {
        stream.write_all(b"ping").await.expect("open");
        soon(stream.read_exact(&mut [0; 4])).await.expect("open beyond the time for an answer to start");
    }
}

#[tokio::test]
async fn a_socket_is_idle_when_its_instance_says_nothing() {
    let timed = Revision { timeout: HOUR, idle: Some(SHORT), ..revision("rev", &[echo().await]) };
    let world = world(table(vec![timed]));
    let (mut stream, _) = upgrade(&world).await;
    soon(stream.read_exact(&mut [0])).await.expect_err("cut, since nobody spoke");
}

#[tokio::test]
async fn what_an_instance_says_winds_the_idle_clock_of_a_socket() {
    // The gaps are 30 ms; only a machine that stops for a second fails this.
    let idle = Duration::from_millis(1030);
    let timed = Revision { timeout: HOUR, idle: Some(idle), ..revision("rev", &[echo().await]) };
    let world = world(table(vec![timed]));
    let (mut stream, _) = upgrade(&world).await;
    let begun = Instant::now();
    while begun.elapsed() < 2 * idle {
        stream.write_all(b"ping").await.expect("open");
        soon(stream.read_exact(&mut [0; 4])).await.expect("open while its instance speaks");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test]
async fn an_open_socket_is_reported_as_a_request_in_flight() {
    let mut world = world(table(vec![revision("rev", &[echo().await])]));
    let (stream, _) = upgrade(&world).await;
    // Silent for several periods, and in each of them one request in the system.
    let mut periods = 0;
    while periods < 5 {
        let report = soon(world.feeds.stats.recv()).await.expect("gateway lives");
        let stat = report.iter().find(|stat| stat.revision == key("rev")).expect("the revision has an instance");
        if periods > 0 {
            assert!((stat.average_concurrency - 1.0).abs() < 0.01, "{stat:?}");
        }
        periods += u32::from(periods > 0 || (stat.average_concurrency - 1.0).abs() < 0.01);
    }
    drop(stream);
    soon(async { while world.feeds.stats.recv().await.expect("gateway lives")[0].average_concurrency > 0.0 {} }).await;
}

#[tokio::test]
async fn an_instance_may_decline() {
    let world = world(table(vec![revision("rev", &[saying("no sockets here").await])]));
    let (mut stream, head) = upgrade(&world).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut body = [0; 15];
    soon(stream.read_exact(&mut body)).await.expect("whole");
    assert_eq!(&body, b"no sockets here");
    drop(stream);
    assert_eq!(world.get().await.status, StatusCode::OK);
}
