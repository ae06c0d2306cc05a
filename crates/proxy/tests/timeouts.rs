//! The three clocks, before and after the head of a response has left.

mod support;

use std::time::{Duration, Instant};

use http::StatusCode;
use knoll_api::table::Instance;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHORT: Duration = Duration::from_millis(100);

/// An instance that writes `answer` and then nothing, until it is hung up on.
async fn stalling(answer: &'static str) -> Instance {
    raw_instance(move |mut stream| async move {
        if read_head(&mut stream).await.is_some() {
            stream.write_all(answer.as_bytes()).await.expect("gateway listens");
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "hung up on");
        }
    })
    .await
}

/// An instance that sends a chunk each 30 ms, ten in all.
async fn dripping() -> Instance {
    raw_instance(|mut stream| async move {
        if read_head(&mut stream).await.is_none() {
            return;
        }
        let mut written = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            written = written.and(stream.write_all(b"1\r\nx\r\n").await);
        }
        drop(written.and(stream.write_all(b"0\r\n\r\n").await));
    })
    .await
}

fn clocks(instance: Instance, timeout: Duration, start: Option<Duration>, idle: Option<Duration>) -> World {
    world(table(vec![Revision { timeout, response_start: start, idle, ..revision("rev", &[instance]) }]))
}

const HOUR: Duration = Duration::from_secs(3600);
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";

#[tokio::test]
async fn without_a_response_each_clock_answers_504() {
    let settings = [(SHORT, None, None), (HOUR, Some(SHORT), None), (HOUR, None, Some(SHORT))];
    for (timeout, start, idle) in settings {
        let world = clocks(stalling("").await, timeout, start, idle);
        let begun = Instant::now();
        let answer = world.get().await;
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(answer.body, "activator request timeout");
        assert!(begun.elapsed() >= SHORT);
    }
}

#[tokio::test]
async fn after_the_head_the_text_is_appended_and_the_response_ends_well() {
    for (timeout, idle) in [(SHORT, None), (HOUR, Some(SHORT))] {
        let world = clocks(stalling(CHUNKED).await, timeout, None, idle);
        let mut client = world.http1().await;
        let answer = client.get("/").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.body, "helloactivator request timeout");
    }
}

#[tokio::test]
async fn a_response_of_announced_length_breaks_off() {
    let world = clocks(stalling("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await, SHORT, None, None);
    let answer = talk(world.external, "GET / HTTP/1.1\r\nhost: hello.test\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
}

#[tokio::test]
async fn the_response_start_clock_stops_with_the_head() {
    let world = clocks(dripping().await, HOUR, Some(SHORT), None);
    assert_eq!(world.get().await.body, "xxxxxxxxxx");
}

#[tokio::test]
async fn each_write_winds_the_idle_clock() {
    // The gaps are 30 ms; only a machine that stops for a second fails this.
    let world = clocks(dripping().await, HOUR, None, Some(Duration::from_millis(1030)));
    assert_eq!(world.get().await.body, "xxxxxxxxxx");
    let hurried = clocks(dripping().await, SHORT, None, Some(HOUR));
    let cut = hurried.get().await.body;
    assert!(cut.ends_with("activator request timeout") && cut.len() < 35, "{cut}");
}

#[tokio::test]
async fn a_request_that_ran_out_of_time_gives_its_place_back() {
    let stalled = stalling("").await;
    let limited = Revision { timeout: SHORT, limit: 1, ..revision("rev", &[stalled]) };
    let world = world(table(vec![limited]));
    for _ in 0..3 {
        assert_eq!(world.get().await.status, StatusCode::GATEWAY_TIMEOUT);
    }
}
