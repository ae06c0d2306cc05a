//! No event that was answered with 202 is lost, however often the server is killed.
//!
//! `scripts/e2e loss` runs it for ten minutes, in which 200,000 events are taken; a few seconds of it run with the other tests
//! that kill servers. How long, in seconds, is `KNOLL_LOSS_SECONDS`.

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

use knoll_e2e::{Connection, Namespace, Own, Place, Reply, Sink, succeed, until_within};
use serde_json::{Value, json};

/// Threads that send, each the next event when the last one is answered. So many that a disk which is slow to sync is enough.
const SENDERS: u64 = 16;
/// Events a second, of all of them together.
const RATE: u64 = 350;
/// Seconds of a long run, and how many events are taken in them at least.
const LONG: (u64, u64) = (600, 200_000);
/// Events that a subscriber is sent at a time in the beginning: of these none says how many it takes.
const BEGINNING: u64 = 32;
/// How long a sender waits when it is not answered.
const REST: Duration = Duration::from_millis(5);
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

/// Sends numbered events at its part of the rate until it is told to end, at once what it is late with; those that were taken.
fn send(place: &Place, next: &AtomicU64, end: &AtomicBool) -> Vec<u64> {
    let (mut taken, mut connection) = (Vec::new(), None);
    let mut due = Instant::now();
    while !end.load(Relaxed) {
        // What was not answered may have been taken: no number is sent twice.
        let id = next.fetch_add(1, Relaxed);
        let mut over = connection.take().or_else(|| Connection::open(&place.address).ok());
        let status = over.as_mut().and_then(|over| place.send_over(over, &id.to_string(), "numbered").ok());
        connection = over.filter(|_| status.is_some());
        if status == Some(202) {
            taken.push(id);
            due += Duration::from_micros(1_000_000 * SENDERS / RATE);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        } else {
            thread::sleep(REST);
        }
    }
    taken
}

/// Whether no Trigger has anything on its way or before it, and the broker keeps no dead letter of its own.
fn is_at_rest(own: &Own) -> bool {
    let listed = succeed(own.data(), &["event", "list", "-A"]);
    let rows: Vec<Vec<&str>> = listed.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    // A broker's row has its name and its dead letters, a Trigger's its name, lag, what is on its way, and what was done.
    let at_rest = |row: &Vec<&str>| {
        if let [_, lag, on_its_way, _, _] = row[..] {
            lag == "0" && on_its_way == "0"
        } else {
            row.last() == Some(&"0")
        }
    };
    rows.len() == MANNERS.len() + 1 && rows.iter().all(at_rest)
}

/// How many events may come once more after a kill now: those that are on their way, and as many that were taken a moment ago,
/// of which the log is not told yet.
fn at_stake(own: &Own) -> u64 {
    let page: Value = serde_json::from_str(&succeed(own.data(), &["admin", "get", "/events"])).expect("JSON");
    let triggers = page["items"].as_array().into_iter().flatten().flat_map(|item| item["subscriptions"].as_array());
    let at_a_time: Vec<u64> = triggers.flatten().filter_map(|trigger| trigger["concurrency"].as_u64()).collect();
    // One that has not begun yet begins so.
    let unknown = MANNERS.len() - at_a_time.len().min(MANNERS.len());
    2 * (at_a_time.into_iter().map(|count| count.max(BEGINNING)).sum::<u64>() + unknown as u64 * BEGINNING)
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
    let (mut kills, mut most) = (0_u64, 0);
    while Instant::now() < until {
        // Ten to thirty seconds in a long run, at moments that are no multiples of anything.
        let pause = if seconds > 60 { 10_000 + kills * 7_919 % 20_000 } else { 700 + kills * 331 % 900 };
        thread::sleep(Duration::from_millis(pause));
        most += at_stake(&own);
        own.signal("KILL");
        own.up_again();
        kills += 1;
    }
    end.store(true, Relaxed);
    let taken: Vec<u64> = senders.into_iter().flat_map(|sender| sender.join().expect("no panic")).collect();
    for Subscriber { name, seen, .. } in &subscribers {
        until_within(SETTLE, &format!("{name} or its dead letter sink has every event"), || {
            let seen = seen.lock().expect("nobody panics");
            taken.iter().all(|id| seen.contains_key(id)).then_some(())
        });
    }
    until_within(SETTLE, "nothing is on its way any more", || is_at_rest(&own).then_some(()));
    let mut again = 0;
    for Subscriber { name, seen, .. } in &subscribers {
        let seen = seen.lock().expect("nobody panics");
        let of_this: u64 = seen.values().map(|count| u64::from(count - 1)).sum();
        println!("{name}: all of {} events taken, {of_this} deliveries once more", taken.len());
        again += of_this;
    }
    println!("{kills} kills, {again} deliveries once more of {most} that there may be");
    assert!(again <= most, "{again} once more after {kills} kills");
    let least = if seconds >= LONG.0 { LONG.1 } else { seconds * RATE / 4 };
    assert!(kills > 1 && taken.len() as u64 >= least, "{kills} kills, {} events taken", taken.len());
}
