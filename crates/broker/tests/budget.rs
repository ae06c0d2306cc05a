//! Namespaces that share the event log: what waits in one leaves room for the others, and what finds no room waits for it.

mod world;

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use knoll_broker::{
    AskError, Config, Hooks, OperationError, Start, Topology,
    delivery::Destination,
    topology::{Addressable, Kind, Name, Subscriber, Subscription},
};
use knoll_event::{
    Event,
    mode::{self, Format},
};
use knoll_journal::events::{EventOptions, Retention};
use tokio::time::{Instant, sleep};
use world::*;

/// Most events that a test sends until something is refused.
const MANY: usize = 1000;

fn small_log() -> EventOptions {
    let retention = Retention { age_ms: 0, bytes: 0 };
    EventOptions { segment_bytes: 64 << 10, budget_bytes: 4 << 20, retention, ..options() }
}

fn start(directory: &std::path::Path, topology: &Topology) -> World {
    World::start_with(directory, topology.clone(), small_log(), Config::default(), Hooks::default())
}

fn of(namespace: &str, name: &str) -> Name {
    Name::new(Kind::Broker, namespace, name)
}

/// One that is told that it is too much, or takes events, as its sink is told to.
fn trigger(sinks: &Sinks, name: &str) -> Subscription {
    Subscription { delivery: Some(retries(1_000_000, 50)), ..to(sinks, name) }
}

fn event(number: usize) -> Event {
    let mut event = Event::new(&number.to_string(), "/sender", "t").expect("an event");
    event.set_data("application/octet-stream", vec![7; 16 << 10]).expect("data");
    event
}

/// Sends a numbered event of 16 KiB: the answer, and what it says.
async fn send(world: &World, to: &Name, number: usize) -> (StatusCode, String) {
    let mut headers = HeaderMap::new();
    let body = mode::write(&event(number), Format::Binary, &mut headers);
    let address = Topology::default().address(to).expect("an address");
    let answer = world.post(&address, headers, body).await;
    let is_refused = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(answer.headers().contains_key("retry-after"), is_refused);
    let status = answer.status();
    let said = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&said).into_owned())
}

/// Sends an event, again while the log's files are as large as they may be until what nobody needs is removed.
async fn send_patiently(world: &World, to: &Name, number: usize) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match send(world, to, number).await {
            (StatusCode::ACCEPTED, _) => return Ok(()),
            (StatusCode::SERVICE_UNAVAILABLE, said) if said.contains("namespace") => return Err(said),
            (status, said) => assert!(status == StatusCode::SERVICE_UNAVAILABLE && Instant::now() < end, "{said}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Sends events until one is refused: how many were taken, and why no more.
async fn fill(world: &World, to: &Name) -> (usize, String) {
    for number in 0..MANY {
        if let Err(said) = send_patiently(world, to, number).await {
            return (number, said);
        }
    }
    panic!("nothing is refused");
}

async fn is_taken_again(world: &World, to: &Name) {
    let end = Instant::now() + Duration::from_secs(30);
    while send_patiently(world, to, MANY).await.is_err() {
        assert!(Instant::now() < end, "there is no room again");
        sleep(Duration::from_millis(20)).await;
    }
}

fn got(sinks: &Sinks, name: &str, count: usize) -> bool {
    let all: BTreeSet<String> = sinks.ids(name).into_iter().collect();
    (0..count).all(|number| all.contains(&number.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_one_namespace_leaves_room_for_others_also_after_a_restart() {
    let (directory, sinks) = (tempfile::tempdir().expect("a directory"), Sinks::start().await);
    let (full, other) = (of("full", "b"), of("other", "b"));
    let topology = with(Topology::default(), &full, vec![trigger(&sinks, "stuck")]);
    let topology = topology.with(Addressable::new(other.clone(), "uid-other", None, vec![to(&sinks, "fine")]));
    sinks.on("stuck", |_, _| Act::Status(503));
    let world = start(directory.path(), &topology);
    world.ready(&["stuck", "fine"]).await;
    let (taken, said) = fill(&world, &full).await;
    assert!(said.contains("namespace full"), "{said}");
    assert!(world.metric("broker_events_over_part") > 0);
    assert!(world.metric("broker_log_waiting_bytes") >= (taken * (16 << 10)) as u64);
    for number in 0..50 {
        send_patiently(&world, &other, number).await.expect("the other one has room");
    }
    until("the other's are delivered", || got(&sinks, "fine", 50)).await;
    world.kill().await;
    let world = start(directory.path(), &topology);
    world.ready(&["stuck", "fine"]).await;
    let (status, said) = send(&world, &full, MANY).await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && said.contains("namespace full"), "{said}");
    send_patiently(&world, &other, 50).await.expect("the other one has room");
    sinks.on("stuck", |_, _| Act::Status(202));
    is_taken_again(&world, &full).await;
    until("all are delivered", || got(&sinks, "stuck", taken)).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_count_for_their_namespace_until_they_are_dropped() {
    let (directory, sinks) = (tempfile::tempdir().expect("a directory"), Sinks::start().await);
    let full = of("full", "b");
    let topology = with(Topology::default(), &full, vec![to(&sinks, "refuses")]);
    sinks.on("refuses", |_, _| Act::Status(400));
    let world = start(directory.path(), &topology);
    world.ready(&["refuses"]).await;
    let mut taken = 0;
    let said = loop {
        until("all are dead letters", || world.plane.dead_letter_count(&full) == taken).await;
        match send_patiently(&world, &full, taken as usize).await {
            Ok(()) => taken += 1,
            Err(said) => break said,
        }
    };
    assert!(taken > 50 && said.contains("namespace full"), "{taken}: {said}");
    assert!(world.metric("broker_log_waiting_bytes") >= taken * (16 << 10));
    let letters: Vec<u64> = (0..taken).collect();
    world.plane.drop_dead_letters(&full, &letters).await.expect("they are dropped");
    is_taken_again(&world, &full).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_sends_on_waits_where_it_is_until_there_is_room_and_no_retry_is_used() {
    let (directory, sinks) = (tempfile::tempdir().expect("a directory"), Sinks::start().await);
    let (source, full) = (of("source", "b"), of("full", "target"));
    let address = Topology::default().address(&full).expect("an address");
    let on = Subscription::new("source", "on", "on", Subscriber::At(Destination::new(address)));
    let topology = with(Topology::default(), &source, vec![on]);
    let topology = with(topology, &full, vec![trigger(&sinks, "stuck")]);
    sinks.on("stuck", |_, _| Act::Status(503));
    let world = start(directory.path(), &topology);
    world.ready(&["on", "stuck"]).await;
    // What waits fills the part of its own namespace at last, whose senders are told.
    let mut sent = 0;
    loop {
        match send_patiently(&world, &source, sent).await {
            Ok(()) => sent += 1,
            Err(said) if world.metric("broker_deliveries_held_back") > 20 => {
                break assert!(said.contains("namespace source"), "{said}");
            }
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
        assert!(sent < MANY, "nothing is held back");
    }
    let held = world.metric("broker_deliveries_held_back");
    until("they were tried again", || world.metric("broker_deliveries_held_back") > held).await;
    assert_eq!(world.plane.dead_letter_count(&source), 0);
    let status = world.plane.status("on").expect("it is there");
    assert_eq!((status.failed_attempts, status.dead_letters), (0, 0));
    assert!(status.lag > 0, "they wait");
    sinks.on("stuck", |_, _| Act::Status(202));
    until("all come", || got(&sinks, "stuck", sent)).await;
    assert_eq!(world.plane.dead_letter_count(&source), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_that_is_put_aside_for_many_has_its_namespaces_part_and_each_gets_it_in_the_end() {
    let (directory, sinks) = (tempfile::tempdir().expect("a directory"), Sinks::start().await);
    let (evil, good) = (of("evil", "b"), of("good", "b"));
    let names: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
    let mut triggers: Vec<Subscription> = names.iter().map(|name| trigger(&sinks, name)).collect();
    // One who keeps up does not wait for the others.
    triggers.push(to(&sinks, "fast"));
    let topology = with(Topology::default(), &evil, triggers);
    let topology = topology.with(Addressable::new(good.clone(), "uid-good", None, vec![trigger(&sinks, "stuck")]));
    names.iter().map(String::as_str).chain(["stuck"]).for_each(|name| sinks.on(name, |_, _| Act::Status(503)));
    let config = Config { window: 1, ..Config::default() };
    let world = World::start_with(directory.path(), topology, small_log(), config, Hooks::default());
    world.ready(&["t0", "t99", "fast", "stuck"]).await;
    let (part, large) = ((4 << 20) / 8 * 5 / 16 * 15, 64 << 10);
    let mut last = event(2);
    last.set_data("application/octet-stream", vec![7; large]).expect("data");
    for number in 0..2 {
        send_patiently(&world, &evil, number).await.expect("room");
    }
    assert_eq!(world.send(&evil, &last).await, StatusCode::ACCEPTED);
    let waiting = || world.metric("broker_log_waiting_bytes");
    until("as much is put aside as may be", || waiting() + (large as u64) > part).await;
    assert!(waiting() <= part + 2 * large as u64, "{} of {part} bytes wait", waiting());
    let (taken, said) = fill(&world, &good).await;
    assert!(taken > 0 && said.contains("namespace good"), "{taken}: {said}");
    names.iter().for_each(|name| sinks.on(name, |_, _| Act::Status(202)));
    until("all have it", || names.iter().all(|name| got(&sinks, name, 3))).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replayed_has_the_room_that_senders_have() {
    let (directory, sinks) = (tempfile::tempdir().expect("a directory"), Sinks::start().await);
    let full = of("full", "b");
    let topology = with(Topology::default(), &full, vec![to(&sinks, "fine"), trigger(&sinks, "stuck")]);
    sinks.on("stuck", |_, _| Act::Status(503));
    let world = start(directory.path(), &topology);
    world.ready(&["fine", "stuck"]).await;
    let (taken, _) = fill(&world, &full).await;
    until("it is kept", || got(&sinks, "fine", taken)).await;
    let refused = world.plane.replay(&full, "fine", Start::Offset(0)).await.expect_err("its namespace has its part");
    assert!(matches!(refused, OperationError::Log(AskError::NoRoom(_))), "{refused}");
    world.finish().await;
}
