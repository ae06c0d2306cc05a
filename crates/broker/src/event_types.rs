//! EventTypes that are made of the events that are taken, where the feature `eventtype-auto-create` is on.
//!
//! An event costs a look-up by a hash. What was met lately is not told again: at most [`KNOWN`] to twice as many types are
//! remembered, each for [`REMEMBERED`] to twice as long, so that an EventType that somebody deletes is made again some time
//! later. Who makes them is told at a bounded rate, and of no more than [`MOST_OF_ONE`] new types of one broker or channel:
//! senders choose types, and each is an object.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use knoll_api::{
    Key, Kind as ApiKind, Resource,
    eventing::{EventType, auto_created},
    metrics::MetricFamily,
};
use knoll_event::Event;
use tokio::sync::mpsc;

use crate::{
    Taken,
    metrics::Counter,
    topology::{Addressable, Kind},
};

/// Types that are remembered before older ones may be forgotten.
const KNOWN: usize = 16_384;
/// How long, before they may be.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Types that wait to be made.
const WAITING: usize = 1024;
/// Most EventTypes that are made of the events of one broker or channel while this process runs.
const MOST_OF_ONE: u32 = 1000;
/// Brokers and channels whose EventTypes are counted.
const COUNTED: usize = 10_000;
/// EventTypes that are made at once, and how often one more may be.
const BURST: u32 = 50;
const PACE: Duration = Duration::from_millis(100);

/// A type that was met.
struct Met {
    /// Its place among what is known.
    hash: u64,
    /// Who took the event, by uid.
    owner: Arc<str>,
    event_type: EventType,
}

/// What came of making an EventType.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was made.
    New,
    /// There is one of its name: it is left alone.
    Known,
}

/// Hashes of what was met, in two generations.
#[derive(Default)]
struct Known {
    young: HashSet<u64>,
    old: HashSet<u64>,
    /// When the young one began.
    since: Option<Instant>,
}

impl Known {
    /// Whether this is news; it is not from now on.
    fn is_news(&mut self, hash: u64, now: Instant) -> bool {
        let is_over = self.since.is_none_or(|since| now.saturating_duration_since(since) >= REMEMBERED);
        if is_over || self.young.len() >= KNOWN {
            self.old = std::mem::take(&mut self.young);
            self.since = Some(now);
        }
        // What is met again and again is told again all the same: it may be gone.
        !self.old.contains(&hash) && self.young.insert(hash)
    }

    fn forget(&mut self, hash: u64) {
        self.young.remove(&hash);
        self.old.remove(&hash);
    }
}

/// Notes the types of events that are taken, and has EventTypes made of them.
pub struct EventTypes {
    is_on: AtomicBool,
    known: Mutex<Known>,
    hasher: RandomState,
    new: mpsc::Sender<Met>,
    made: Counter,
    failed: Counter,
    unmade: Counter,
}

/// The types that are to be made. For one [`EventTypes::make`].
pub struct NewTypes(mpsc::Receiver<Met>);

impl EventTypes {
    /// One that notes nothing until it is switched on.
    pub fn new() -> (Arc<EventTypes>, NewTypes) {
        let (new, waiting) = mpsc::channel(WAITING);
        let types = EventTypes {
            is_on: AtomicBool::new(false),
            known: Mutex::default(),
            hasher: RandomState::new(),
            new,
            made: Counter::default(),
            failed: Counter::default(),
            unmade: Counter::default(),
        };
        (Arc::new(types), NewTypes(waiting))
    }

    /// Switches it on or off, as the feature says.
    pub fn switch(&self, is_on: bool) {
        self.is_on.store(is_on, Relaxed);
    }

    /// What is to be told of every event that is taken: see [`Hooks::taken`](crate::Hooks::taken).
    pub fn taken(self: &Arc<Self>) -> Taken {
        let types = self.clone();
        Arc::new(move |into: &Addressable, event: &Event| {
            if types.is_on.load(Relaxed) {
                types.note(into, event, Instant::now());
            }
        })
    }

    fn note(&self, into: &Addressable, event: &Event, now: Instant) {
        let hash = self.hasher.hash_one((&**into.uid(), event.kind(), event.source()));
        if !self.known().is_news(hash, now) {
            return;
        }
        let kind = match into.name().kind {
            Kind::Broker => ApiKind::Broker,
            Kind::Channel => ApiKind::InMemoryChannel,
        };
        let key = Key::new(&*into.name().namespace, &*into.name().name);
        let event_type = auto_created(kind, &key, into.uid(), event);
        if self.new.try_send(Met { hash, owner: into.uid().clone(), event_type }).is_err() {
            // The next event of this type tells of it again.
            self.known().forget(hash);
            self.unmade.count();
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `create` make what is met, no more than so many at a time, until nobody notes any more. What could not be made is
    /// tried again with the next event of its type.
    pub async fn make<E: std::fmt::Display, F: Future<Output = Result<Made, E>>>(
        self: Arc<Self>,
        mut new: NewTypes,
        create: impl Fn(EventType) -> F,
    ) {
        let mut pace = Pace::new();
        let mut counts: HashMap<Arc<str>, u32> = HashMap::new();
        while let Some(Met { hash, owner, event_type }) = new.0.recv().await {
            let count = counts.get(&owner).copied().unwrap_or_default();
            if count >= MOST_OF_ONE {
                self.unmade.count();
                continue;
            }
            pace.wait().await;
            let (of, name) = (event_type.spec.reference.clone().unwrap_or_default(), event_type.key());
            match create(event_type).await {
                Ok(Made::Known) => {}
                Ok(Made::New) => {
                    self.made.count();
                    if counts.len() >= COUNTED {
                        counts.clear();
                    }
                    counts.insert(owner, count + 1);
                    if count + 1 == MOST_OF_ONE {
                        let (kind, object) = (of.kind, Key::new(of.namespace, of.name));
                        tracing::warn!(kind, %object, most = MOST_OF_ONE, "no more EventTypes are made of its events");
                    }
                }
                Err(error) => {
                    self.failed.count();
                    self.known().forget(hash);
                    tracing::debug!(%name, %error, "an EventType could not be made");
                }
            }
        }
    }

    /// What it counts.
    pub fn metrics(&self) -> Vec<MetricFamily> {
        let help = "EventTypes that could not be made, and are tried again with the next event of theirs";
        let unmade = "Types of events of which no EventType was made for want of room, or because their broker or channel has so many";
        vec![
            MetricFamily::counter("broker_event_types_made", "EventTypes made of events", self.made.read()),
            MetricFamily::counter("broker_event_types_failed", help, self.failed.read()),
            MetricFamily::counter("broker_event_types_not_made", unmade, self.unmade.read()),
        ]
    }
}

/// A few at once, then one after the other.
struct Pace {
    left: u32,
    since: tokio::time::Instant,
}

impl Pace {
    fn new() -> Pace {
        Pace { left: BURST, since: tokio::time::Instant::now() }
    }

    async fn wait(&mut self) {
        let earned = self.since.elapsed().as_millis() / PACE.as_millis();
        let earned = u32::try_from(earned).unwrap_or(BURST).min(BURST);
        self.left = (self.left + earned).min(BURST);
        if earned > 0 {
            self.since = tokio::time::Instant::now();
        }
        if self.left == 0 {
            tokio::time::sleep_until(self.since + PACE).await;
            (self.left, self.since) = (1, tokio::time::Instant::now());
        }
        self.left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;
    use crate::topology::Name;

    fn broker(name: &str) -> Addressable {
        Addressable::new(Name::new(Kind::Broker, "ns", name), &format!("uid-{name}"), None, Vec::new())
    }

    fn event(kind: &str) -> Event {
        Event::new("1", "/s", kind).expect("an event")
    }

    fn names(new: &mut NewTypes) -> Vec<String> {
        std::iter::from_fn(|| new.0.try_recv().ok()).map(|met| met.event_type.spec.type_).collect()
    }

    #[test]
    fn a_type_is_told_once_for_each_who_takes_it_and_only_where_that_is_on() {
        let (types, mut new) = EventTypes::new();
        let taken = types.taken();
        taken(&broker("a"), &event("x"));
        assert!(names(&mut new).is_empty());
        types.switch(true);
        for _ in 0..100 {
            taken(&broker("a"), &event("x"));
            taken(&broker("b"), &event("x"));
            taken(&broker("a"), &event("y"));
        }
        assert_eq!(names(&mut new), ["x", "x", "y"]);
    }

    #[test]
    fn what_was_met_is_forgotten_after_a_while_and_never_too_much_is_remembered() {
        let mut known = Known::default();
        let begin = Instant::now();
        assert!(known.is_news(1, begin));
        assert!(!known.is_news(1, begin + REMEMBERED / 2));
        assert!(!known.is_news(1, begin + REMEMBERED), "it is of the generation before");
        assert!(known.is_news(1, begin + REMEMBERED * 2));
        for hash in 0..100_000 {
            known.is_news(hash, begin + REMEMBERED * 2);
            assert!(known.young.len() <= KNOWN && known.old.len() <= KNOWN);
        }
    }

    #[test]
    fn what_finds_no_room_is_told_again() {
        let (types, mut new) = EventTypes::new();
        types.switch(true);
        let taken = types.taken();
        (0..WAITING + 1).for_each(|at| taken(&broker("a"), &event(&format!("t{at}"))));
        assert_eq!((names(&mut new).len(), types.unmade.read()), (WAITING, 1));
        taken(&broker("a"), &event(&format!("t{WAITING}")));
        assert_eq!(names(&mut new), [format!("t{WAITING}")]);
    }

    #[tokio::test(start_paused = true)]
    async fn types_are_made_at_a_pace_and_what_failed_is_told_again() {
        let (types, new) = EventTypes::new();
        types.switch(true);
        let taken = types.taken();
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let making = tokio::spawn(types.clone().make(new, move |_| {
            let counted = counted.clone();
            async move {
                match counted.fetch_add(1, SeqCst) {
                    0 => Err("no"),
                    _ => Ok(Made::New),
                }
            }
        }));
        taken(&broker("a"), &event("x"));
        tokio::time::sleep(Duration::from_millis(1)).await;
        taken(&broker("a"), &event("x"));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!((calls.load(SeqCst), types.made.read(), types.failed.read()), (2, 1, 1));

        (0..500).for_each(|at| taken(&broker("a"), &event(&format!("t{at}"))));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let made = calls.load(SeqCst);
        assert!((100..=160).contains(&made), "{made} in ten seconds");
        making.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn no_sender_makes_objects_without_end() {
        let (types, new) = EventTypes::new();
        types.switch(true);
        let taken = types.taken();
        let making = tokio::spawn(types.clone().make(new, async |_| Ok::<_, String>(Made::New)));
        for at in 0..MOST_OF_ONE + 200 {
            taken(&broker("a"), &event(&format!("t{at}")));
            tokio::time::sleep(PACE).await;
        }
        taken(&broker("b"), &event("t"));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!((types.made.read(), types.unmade.read()), (u64::from(MOST_OF_ONE) + 1, 200));
        making.abort();
    }
}
