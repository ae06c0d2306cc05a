//! A broker and a channel, who listens to them, and how those behave. A subscriber is a JobSink, which the data plane hands
//! events to without a network.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use http::StatusCode;
use knoll_api::{Resource as _, sinks};
use knoll_broker::{
    Jobs, NoJob, Progress, Topology,
    delivery::{Backoff, BackoffPolicy, Delivery, Destination},
    topology::{Addressable, JobSink, Kind, Name, Subscriber, Subscription, access::Guard},
};
use knoll_event::{Event, filter::Filter};
use serde_json::json;
use tokio::time::sleep;

use super::{disk::EventFault, ledger::Ledger};
use crate::seed::Seed;

/// Their namespace.
pub(super) const NAMESPACE: &str = "ns";
/// Types of events; an event's number says which it is of.
const KINDS: u64 = 3;
/// What ids begin with, and how long they are.
pub(super) const ID: &str = "event-";
pub(super) const ID_LENGTH: usize = ID.len() + 8;
/// Most events that one is sent at a time.
pub(super) const MOST_UNDER_WAY: u32 = 8;
/// How long a subscriber that hangs does so: until the life ends.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);
/// The sink of dead letters.
const LETTERS: &str = "letters";

/// Who listens.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) name: &'static str,
    /// The one type of events that it gets; all without.
    kind: Option<u64>,
    retry: u32,
    /// Whether its dead letters go to the sink for them.
    has_dead_letter_sink: bool,
    /// Whose forwarded events it gets, if it does not get the broker's.
    pub(super) behind: Option<&'static str>,
    how: Manner,
}

/// How a subscriber answers while there is harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Takes,
    /// Takes its time.
    Slow,
    /// Has too much to do now and then.
    Flaps,
    /// Refuses some events, for ever, also when there is no harm.
    Refuses,
    /// Does not answer.
    Hangs,
    /// Is the channel, which answers for itself.
    Forwards,
}

const fn listener(name: &'static str, how: Manner) -> Listener {
    Listener { name, kind: None, retry: 100_000, has_dead_letter_sink: false, behind: None, how }
}

/// All of them.
pub(super) const LISTENERS: [Listener; 8] = [
    listener("quick", Manner::Takes),
    listener("slow", Manner::Slow),
    listener("flaps", Manner::Flaps),
    listener("hangs", Manner::Hangs),
    Listener { kind: Some(0), retry: 1, has_dead_letter_sink: true, ..listener("refuses", Manner::Refuses) },
    Listener { kind: Some(1), retry: 1, ..listener("gives-up", Manner::Refuses) },
    Listener { kind: Some(2), ..listener("onward", Manner::Forwards) },
    Listener { kind: Some(2), behind: Some("onward"), ..listener("after", Manner::Flaps) },
];

impl Listener {
    /// Whether it gets the event of this number.
    pub(super) fn gets(&self, number: u64) -> bool {
        self.kind.is_none_or(|kind| number % KINDS == kind)
    }

    /// Whether what it takes is seen here.
    pub(super) fn is_seen(&self) -> bool {
        self.how != Manner::Forwards
    }
}

/// The listener of this name.
pub(super) fn find(name: &str) -> Option<&'static Listener> {
    LISTENERS.iter().find(|listener| listener.name == name)
}

pub(super) fn uid(name: &str) -> String {
    format!("uid-of-{name}")
}

fn id(number: u64) -> String {
    format!("{ID}{number:08}")
}

/// The number of an event by its id.
pub(super) fn number(id: &str) -> Option<u64> {
    id.strip_prefix(ID)?.parse().ok()
}

/// The event of this number, with so many bytes of data.
pub(super) fn event(number: u64, bytes: usize) -> Event {
    let id = id(number);
    let mut event = Event::new(&id, "/sim", &kind(number % KINDS)).expect("an event");
    // The log keeps it as the event's key: so it is known there without being read.
    event.set("partitionkey", &*id).expect("an extension");
    event.set_data("text/plain", vec![b'x'; bytes]).expect("data");
    event
}

fn kind(kind: u64) -> String {
    format!("kind-{kind}")
}

pub(super) fn broker() -> Name {
    Name::new(Kind::Broker, NAMESPACE, "b")
}

fn channel() -> Name {
    Name::new(Kind::Channel, NAMESPACE, "c")
}

/// The snapshot of all of them.
pub(super) fn topology() -> Topology {
    let mut topology = Topology::default();
    for name in LISTENERS.iter().map(|listener| listener.name).chain([LETTERS]) {
        let object = json!({"metadata": {"namespace": NAMESPACE, "name": name}, "spec": {}});
        let object = Arc::new(serde_json::from_value(object).expect("a JobSink"));
        topology = topology.with_job_sink(JobSink { object, guard: Guard::new(NAMESPACE.into()) });
    }
    let of = |behind: bool| -> Vec<Subscription> {
        let those = LISTENERS.iter().filter(|listener| listener.behind.is_some() == behind);
        those.map(|listener| subscription(&topology, listener)).collect()
    };
    let (triggers, subscriptions) = (of(false), of(true));
    topology.with(Addressable::new(broker(), "uid-b", None, triggers)).with(Addressable::new(
        channel(),
        "uid-c",
        None,
        subscriptions,
    ))
}

fn subscription(topology: &Topology, listener: &Listener) -> Subscription {
    let at = |name: &str| Destination::new(topology.job_sink_address(NAMESPACE, name).expect("an address"));
    let to = match listener.how {
        Manner::Forwards => Destination::new(topology.address(&channel()).expect("an address")),
        _ => at(listener.name),
    };
    let backoff = Some(Backoff { policy: BackoffPolicy::Linear, delay: Duration::from_millis(20) });
    let dead_letter_sink = listener.has_dead_letter_sink.then(|| at(LETTERS));
    let delivery = Delivery { retry: listener.retry, backoff, dead_letter_sink, ..Delivery::default() };
    let filter = match (listener.behind, listener.kind) {
        (None, Some(of)) => Filter::exact([("type", &*kind(of))]),
        _ => Filter::attributes([]),
    };
    Subscription {
        filter,
        delivery: Some(delivery),
        ..Subscription::new(NAMESPACE, listener.name, &uid(listener.name), Subscriber::At(to))
    }
}

/// The subscribers in one life.
pub(super) struct Subscribers {
    pub(super) ledger: Ledger,
    pub(super) fault: EventFault,
    /// The run, so that who refuses an event does so in every life; and the life.
    pub(super) run: u64,
    pub(super) life: u64,
    pub(super) harm: bool,
}

impl Subscribers {
    /// How long one takes for an event, and whether it takes it then.
    fn manner(&self, listener: &Listener, number: u64, time: Duration) -> (Duration, bool) {
        let chance = |life: u64| Seed::new(self.run ^ (life << 32) ^ (number << 8) ^ listener.name.len() as u64);
        let refuses = listener.how == Manner::Refuses && chance(0).once_in(3);
        let mut chance = chance(self.life);
        let briefly = Duration::from_millis(chance.below(3) as u64);
        if !self.harm {
            return (briefly, !refuses);
        }
        match listener.how {
            Manner::Slow => (Duration::from_millis(10 + chance.below(60) as u64), true),
            Manner::Flaps => (briefly, !(time.as_millis() / 150 + u128::from(self.run)).is_multiple_of(3)),
            // Not all of it, and not in each life.
            Manner::Hangs if chance.once_in(2) => (FOR_EVER, true),
            Manner::Takes | Manner::Hangs | Manner::Refuses | Manner::Forwards => (briefly, !refuses),
        }
    }
}

impl Jobs for Subscribers {
    fn make(&self, sink: Arc<sinks::JobSink>, event: Event) -> BoxFuture<'static, Result<(), NoJob>> {
        let name = sink.name().to_owned();
        // Dead letters are those of the one that has its sink.
        let by = if name == LETTERS { "refuses" } else { &name };
        let (Some(listener), Some(number)) = (find(by), number(event.id())) else {
            self.ledger.fail(format!("{name} was sent {event:?}"));
            return Box::pin(async { Ok(()) });
        };
        let (ledger, is_letter) = (self.ledger.clone(), name == LETTERS);
        let (wait, takes) = self.manner(listener, number, ledger.now());
        // The sink of dead letters has its bad moments, too; then a dead letter is kept.
        let takes = if is_letter { !self.harm || number % 4 > 0 } else { takes };
        let lies = self.fault == EventFault::TakesAndRefuses && listener.name == "flaps" && number % 16 == 0;
        Box::pin(async move {
            sleep(wait).await;
            if takes {
                ledger.took(listener, number);
            }
            let status = StatusCode::SERVICE_UNAVAILABLE;
            if takes && !lies { Ok(()) } else { Err(NoJob { status, reason: "not now".to_owned() }) }
        })
    }

    fn progress(&self, _: Arc<sinks::JobSink>, _: String, _: String) -> BoxFuture<'static, Result<Progress, NoJob>> {
        Box::pin(async { Ok(Progress::Running) })
    }
}
