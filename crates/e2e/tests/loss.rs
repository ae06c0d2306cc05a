//! No event that was answered with 202 is lost, however often the server is killed.
//!
//! `scripts/e2e loss` runs it for ten minutes; a few seconds of it run with the other tests that kill servers. How long, in
//! seconds, is `KNOLL_LOSS_SECONDS`.

use std::{
    collections::HashMap,
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use knoll_e2e::{Connection, Namespace, Own, Place, Reply, Sink, until_within};
use serde_json::json;

/// Threads that send.
const SENDERS: u64 = 4;
/// Events a second, of all of them together.
const RATE: u64 = 350;
/// How long what was taken may be on its way once nobody kills any more.
const SETTLE: Duration = Duration::from_secs(300);

/// How often each event was taken by a subscriber, or by its dead letter sink.
type Seen = Arc<Mutex<HashMap<u64, u32>>>;

fn note(seen: &Seen, id: &str) -> u32 {
    let mut seen = seen.lock().expect("nobody panics");
    let count = seen.entry(id.parse().expect("a number")).or_insert(0);
    *count += 1;
    *count
}

/// A subscriber and its dead letter sink.
struct Subscriber {
    name: &'static str,
    seen: Seen,
    sink: Sink,
    letters: Sink,
}

/// How a subscriber answers the attempt of this number, since this long.
type Manner = fn(id: u64, attempt: u32, since: Duration) -> u16;

const MANNERS: [(&str, Manner); 5] = [
    ("taking", |_, _, _| 202),
    ("failing", |id, attempt, _| if id % 3 == 0 && attempt == 1 { 500 } else { 202 }),
    ("slow", |_, _, _| {
        thread::sleep(Duration::from_millis(20));
        202
    }),
    ("flapping", |_, _, since| if since.as_secs() % 4 < 2 { 202 } else { 503 }),
    ("refusing", |_, _, _| 500),
];

fn subscriber(name: &'static str, manner: Manner) -> Subscriber {
    let (seen, attempts, begun) = (Seen::default(), Seen::default(), Instant::now());
    let into = seen.clone();
    let sink = Sink::forgetful(move |received| {
        let id = received.attribute("id");
        let attempt = note(&attempts, id);
        let status = manner(id.parse().expect("a number"), attempt, begun.elapsed());
        if status < 300 {
            note(&into, id);
        }
        Reply::status(status)
    });
    let into = seen.clone();
    let letters = Sink::forgetful(move |received| {
        note(&into, received.attribute("id"));
        Reply::status(202)
    });
    Subscriber { name, seen, sink, letters }
}

/// Sends numbered events until it is told to end; those that were taken.
fn send(place: &Place, next: &AtomicU64, end: &AtomicBool) -> Vec<u64> {
    let (mut taken, mut connection) = (Vec::new(), None);
    let pause = Duration::from_micros(1_000_000 * SENDERS / RATE);
    while !end.load(Relaxed) {
        let begun = Instant::now();
        let id = next.fetch_add(1, Relaxed);
        let mut over = connection.take().or_else(|| Connection::open(&place.address).ok());
        let status = over.as_mut().and_then(|over| place.send_over(over, &id.to_string(), "numbered").ok());
        if status == Some(202) {
            taken.push(id);
        }
        connection = over.filter(|_| status.is_some());
        thread::sleep(pause.saturating_sub(begun.elapsed()));
    }
    taken
}

#[test]
#[ignore = "starts and kills an instance of its own: run by scripts/e2e"]
fn no_event_that_was_taken_is_lost() {
    let seconds = env::var("KNOLL_LOSS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let own = Own::up("loss");
    let space = Namespace::within(own.cluster.clone(), "loss");
    space.apply(r#"{"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": {"name": "default"}}"#);
    let subscribers: Vec<Subscriber> = MANNERS.into_iter().map(|(name, manner)| subscriber(name, manner)).collect();
    for subscriber in &subscribers {
        let delivery = json!({
            "retry": 3, "backoffPolicy": "exponential", "backoffDelay": "PT0.1S",
            "deadLetterSink": {"uri": subscriber.letters.url()},
        });
        let spec = json!({"broker": "default", "subscriber": {"uri": subscriber.sink.url()}, "delivery": delivery});
        let metadata = json!({"name": subscriber.name});
        let trigger =
            json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Trigger", "metadata": metadata, "spec": spec});
        space.apply(&trigger.to_string());
        let ready = ["wait", "--for=condition=Ready", "--timeout=60s", &format!("trigger/{}", subscriber.name)];
        space.kubectl(&ready);
    }
    let place = Place::of(&space, "broker", "default");
    let (next, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (place, next, end) = (place.clone(), next.clone(), end.clone());
            thread::spawn(move || send(&place, &next, &end))
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut kills = 0_u64;
    while Instant::now() < until {
        // Ten to thirty seconds in a long run, at moments that are no multiples of anything.
        let pause = if seconds > 60 { 10_000 + kills * 7_919 % 20_000 } else { 700 + kills * 331 % 900 };
        thread::sleep(Duration::from_millis(pause));
        own.signal("KILL");
        own.up_again();
        kills += 1;
    }
    end.store(true, Relaxed);
    let taken: Vec<u64> = senders.into_iter().flat_map(|sender| sender.join().expect("no panic")).collect();
    assert!(kills > 1 && taken.len() as u64 > seconds * RATE / 4, "{kills} kills, {} events taken", taken.len());
    for Subscriber { name, seen, .. } in &subscribers {
        until_within(SETTLE, &format!("{name} or its dead letter sink has every event"), || {
            let seen = seen.lock().expect("nobody panics");
            taken.iter().all(|id| seen.contains_key(id)).then_some(())
        });
        let seen = seen.lock().expect("nobody panics");
        let again: u64 = seen.values().map(|count| u64::from(count - 1)).sum();
        println!("{name}: {} of {} events taken, none lost, {again} once more, {kills} kills", seen.len(), taken.len());
        // What it is sent at a time, and as much again or 32.
        assert!(again <= kills * 2 * 256, "{name}: {again} once more after {kills} kills");
    }
}
