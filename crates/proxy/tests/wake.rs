//! From zero: one call, and everyone who waits is served.

mod support;

use std::time::Duration;

use http::StatusCode;
use support::*;

fn spawn_get(world: &World) -> tokio::task::JoinHandle<Answer> {
    let external = world.external;
    tokio::spawn(async move { Client1::open(external).await.get("/").await })
}

#[tokio::test]
async fn requests_to_nothing_wait_for_the_first_instance() {
    let mut world = world(table(vec![revision("rev", &[])]));
    let all: Vec<_> = (0..10).map(|_| spawn_get(&world)).collect();
    assert_eq!(soon(world.feeds.wakes.recv()).await, Some(key("rev")));
    world.gateway.instance_up(key("rev"), saying("awake").await);
    for answer in all {
        assert_eq!(soon(answer).await.expect("no panic").body, "awake");
    }
}

#[tokio::test]
async fn a_table_brings_an_instance_as_well() {
    let mut world = world(table(vec![revision("rev", &[])]));
    let waiting = spawn_get(&world);
    assert_eq!(soon(world.feeds.wakes.recv()).await, Some(key("rev")));
    world.publish(table(vec![revision("rev", &[saying("awake").await])])).await;
    assert_eq!(soon(waiting).await.expect("no panic").body, "awake");
}

#[tokio::test]
async fn the_call_is_repeated_while_someone_waits() {
    let mut world = world(table(vec![revision("rev", &[])]));
    let waiting = spawn_get(&world);
    for _ in 0..3 {
        assert_eq!(soon(world.feeds.wakes.recv()).await, Some(key("rev")));
    }
    world.gateway.instance_up(key("rev"), saying("awake").await);
    assert_eq!(soon(waiting).await.expect("no panic").body, "awake");
}

#[tokio::test]
async fn waiting_ends_with_the_revisions_time() {
    let short = Revision { timeout: Duration::from_millis(50), ..revision("rev", &[]) };
    let world = world(table(vec![short]));
    let answer = world.get().await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::GATEWAY_TIMEOUT, "activator request timeout"));
}

#[tokio::test]
async fn waiting_counts_as_concurrency() {
    let mut world = world(table(vec![revision("rev", &[])]));
    let waiting = spawn_get(&world);
    soon(async {
        loop {
            let report = world.feeds.stats.recv().await.expect("gateway lives");
            if report.iter().any(|stat| stat.revision == key("rev") && stat.average_concurrency > 0.99) {
                return;
            }
        }
    })
    .await;
    waiting.abort();
}

#[tokio::test]
async fn an_instance_announced_before_its_revision_is_remembered() {
    let world = world(table(vec![]));
    world.gateway.instance_up(key("rev"), saying("early").await);
    world.publish(table(vec![revision("rev", &[])])).await;
    assert_eq!(world.get().await.body, "early");
}

#[tokio::test]
async fn a_failure_ends_the_wait() {
    let mut world = world(table(vec![revision("rev", &[])]));
    let waiting = spawn_get(&world);
    soon(world.feeds.wakes.recv()).await;
    let failed = Revision { failure: Some("ExitCode1: it crashed".into()), ..revision("rev", &[]) };
    world.publish(table(vec![failed])).await;
    let answer = soon(waiting).await.expect("no panic");
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "ExitCode1: it crashed"));
}

#[tokio::test]
async fn a_deleted_revision_ends_the_wait() {
    let mut world = world(table(vec![revision("rev", &[])]));
    let waiting = spawn_get(&world);
    soon(world.feeds.wakes.recv()).await;
    world.publish(table(vec![])).await;
    assert_eq!(soon(waiting).await.expect("no panic").status, StatusCode::SERVICE_UNAVAILABLE);
}
