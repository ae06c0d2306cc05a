//! What a panic costs. The panics are real: a subscriber of this test's process panics when the gateway says a certain
//! thing, which happens in the middle of its work.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use knoll_proxy::Visibility;
use support::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Panics at each message it is armed for, as often as it is.
struct Mines;

static REQUEST: AtomicUsize = AtomicUsize::new(0);
static TABLE: AtomicUsize = AtomicUsize::new(0);
static ACCEPT: AtomicUsize = AtomicUsize::new(0);

fn armed(mine: &AtomicUsize) -> bool {
    mine.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Visit for Mines {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let said = format!("{value:?}");
        let mine = match said.as_str() {
            "instance cannot be reached" => &REQUEST,
            "a new table is in force" => &TABLE,
            "a client came" => &ACCEPT,
            _ => return,
        };
        assert!(field.name() != "message" || !armed(mine), "a mine went off at: {said}");
    }
}

impl Subscriber for Mines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("knoll_proxy")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Mines);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn panics(world: &World) -> f64 {
    number(&world.gateway, "gateway_panics", None)
}

/// One test, since a subscriber is for a whole process: each part would hear the mines of the others.
#[tokio::test]
async fn a_panic_costs_a_request_a_table_or_a_client_and_the_gateway_goes_on() {
    tracing::subscriber::set_global_default(Mines).expect("the first subscriber");
    // One place, so that a request that lost it would be noticed.
    let absent = [nobody().await];
    let limited = |name| Revision { limit: 1, ..revision(name, &absent) };

    // Two requests, over both HTTPs.
    let world = world(table(vec![limited("one")]));
    REQUEST.store(2, Ordering::SeqCst);
    let mut client = world.http1().await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.body, "the gateway failed on this request");
    let mut streams = http2(world.external).await;
    let asked = http::Request::get("http://hello.test/").body(empty()).expect("request");
    let answer = soon(streams.send_request(asked)).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(panics(&world), 2.0);
    assert_eq!(number(&world.gateway, "gateway_own_responses", Some("panic")), 2.0);
    // The connections carry on, and no place is lost: the limit is one.
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, StatusCode::BAD_GATEWAY);
    }
    assert_eq!(number(&world.gateway, "gateway_requests_in_flight", None), 0.0);

    // Two tables.
    TABLE.store(2, Ordering::SeqCst);
    for name in ["two", "three"] {
        let before = panics(&world);
        world.tables.send_replace(Some(Arc::new(table(vec![limited(name)]))));
        until(|| panics(&world) > before).await;
    }
    world.publish(table(vec![revision("four", &[saying("four").await])])).await;
    assert_eq!(client.get("/").await.body, "four");

    // Two clients at the door.
    ACCEPT.store(2, Ordering::SeqCst);
    for _ in 0..2 {
        let before = panics(&world);
        let lost = tokio::net::TcpStream::connect(world.external).await.expect("the socket is there");
        until(|| panics(&world) > before).await;
        drop(lost);
    }
    assert_eq!(panics(&world), 6.0);
    assert_eq!(world.get().await.body, "four");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    world.gateway.serve(listener, Visibility::ClusterLocal).expect("the control thread lives");
}
