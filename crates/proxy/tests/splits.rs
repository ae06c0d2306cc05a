//! Shares of traffic, and tables that change under it.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use knoll_api::table::{Host, Path, Split};
use support::*;

#[tokio::test]
async fn traffic_follows_percents() {
    let (old, new) = (saying("old").await, saying("new").await);
    let mut routes = table(vec![revision("old", &[old]), revision("new", &[new])]);
    routes.external.insert("hello.test".into(), host(&[("old", 90), ("new", 10)]));
    let world = world(routes);
    let mut client = world.http1().await;
    let mut counts = BTreeMap::<String, u32>::new();
    for _ in 0..2000 {
        *counts.entry(client.get("/").await.body).or_default() += 1;
    }
    // 200 expected; six standard deviations are 80.
    assert!((120..280).contains(&counts["new"]), "{counts:?}");
    assert_eq!(counts.values().sum::<u32>(), 2000);
}

#[tokio::test]
async fn a_tag_header_picks_its_revision_and_splits_set_headers() {
    let shows = instance(|request| async move {
        let tagged = request.headers().get("x-tag").map_or("none".into(), |tag| format!("{tag:?}"));
        http::Response::new(full(tagged))
    })
    .await;
    let split = |name: &str, tag: &str| Split {
        percent: 100,
        service: key(name),
        append_headers: vec![("X-Tag".into(), tag.into())],
    };
    let mut routes = table(vec![revision("rev", &[shows])]);
    let tagged = Path {
        prefix: "/".into(),
        headers: vec![("knative-serving-tag".into(), "blue".into())],
        splits: vec![split("rev", "blue")],
        ..Path::default()
    };
    let plain = Path { prefix: "/".into(), splits: vec![split("rev", "main")], ..Path::default() };
    let paths = vec![tagged, plain];
    routes.external.insert("hello.test".into(), Arc::new(Host { redirect_to_https: false, paths }));
    let world = world(routes);
    let mut client = world.http1().await;
    assert_eq!(client.get("/").await.body, "\"main\"");
    let mut blue = request("/");
    blue.headers_mut().insert("knative-serving-tag", "blue".parse().expect("value"));
    assert_eq!(Answer::read(client.send(blue).await).await.body, "\"blue\"");
}

#[tokio::test]
async fn a_published_table_counts_for_the_next_request() {
    let instances = [saying("one").await, saying("two").await];
    let routes = |name: &'static str| {
        let both = vec![revision("one", &instances[..1]), revision("two", &instances[1..])];
        let mut routes = table(both);
        routes.external.insert("hello.test".into(), host(&[(name, 100)]));
        routes
    };
    let world = world(routes("one"));
    let mut clients = [world.http1().await, world.http1().await];
    for round in 0..20 {
        let name = if round % 2 == 0 { "two" } else { "one" };
        world.publish(routes(name)).await;
        for client in &mut clients {
            assert_eq!(client.get("/").await.body, name);
        }
    }
}

#[tokio::test]
async fn tables_that_change_under_load_fail_nothing() {
    let instances = [saying("a").await, saying("b").await, saying("c").await];
    let world = world(table(vec![revision("rev", &instances)]));
    let external = world.external;
    let clients: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client1::open(external).await;
                for _ in 0..300 {
                    assert_eq!(client.get("/").await.status, StatusCode::OK);
                }
            })
        })
        .collect();
    let mut round = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        let left_out = round % instances.len();
        let some: Vec<_> = instances
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != left_out)
            .map(|(_, instance)| instance.clone())
            .collect();
        world.publish(table(vec![revision("rev", &some)])).await;
        round += 1;
    }
    for client in clients {
        client.await.expect("no request failed");
    }
    assert!(round > 3, "the table changed meanwhile");
}
