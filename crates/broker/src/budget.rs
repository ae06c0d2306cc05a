//! Who may have how much of the event log, so that what waits in one namespace leaves room for the others.
//!
//! What waits are events that are not delivered to everybody yet, those put aside for a subscriber that is behind, and kept
//! dead letters. They count for the namespace of their broker or channel. All namespaces together may have five eighths of
//! the log's budget: what waits takes up to a third more on disk, which is five sixths, and the rest is for what goes as
//! soon as there is no room. A namespace may have a part of what the others leave of that, so one alone may have most of it, two share
//! it, and however many there are, something is left for who comes next:
//!
//! | | of the log's files, of its budget | of one namespace, of what the others leave | alone | of two, each |
//! |---|---|---|---|---|
//! | senders | 9/10 | 3/4 | 3/4 | 3/7 |
//! | what deliveries send on | 19/20 | 7/8 | 7/8 | 7/15 |
//! | what they put aside, and what they make | all | 15/16 | 15/16 | 15/31 |
//!
//! Deliveries may have more than senders, or nothing could go that must come somewhere else first. One thing that they make is
//! taken whole when there is any room at all; what is many, as one event is for all subscribers that are behind, comes in
//! parts that each look for room. Nothing is taken back from who has more than
//! its part because others came: it gets no more. What is being written counts as well. Looking at this costs the same however
//! much there is.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use knoll_journal::events::{Counts, Tally};

/// Whose event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Somebody sends it.
    Sender,
    /// A delivery sends it on, from one broker or channel to another. It waits where it is while there is no room, so that what
    /// goes round or multiplies leaves room for those who end.
    Forward,
    /// A delivery makes it, a reply or a dead letter, or puts it aside. It is taken while others are refused for want of room, so that deliveries can end.
    Delivery,
}

/// Why there is no room in the event log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Its files are as large as they may be.
    #[error("the event log has the size it may have, {used} of {most} bytes")]
    Log {
        /// Bytes of its files.
        used: u64,
        /// Most they may be for who asked.
        most: u64,
    },
    /// What waits of one namespace has its part.
    #[error(
        "the events that wait in namespace {namespace} have the part of the event log that they may have, {waiting} of {most} bytes"
    )]
    Namespace {
        /// Which one.
        namespace: Arc<str>,
        /// Bytes of its events that wait.
        waiting: u64,
        /// Most they may be for who asked.
        most: u64,
    },
    /// The disk is full.
    #[error("the disk of the event log is full")]
    Disk,
}

impl From {
    /// Of the log's budget, how large its files may be.
    fn of_files(self, budget: u64) -> u64 {
        match self {
            Self::Sender => budget / 10 * 9,
            Self::Forward => budget / 20 * 19,
            Self::Delivery => u64::MAX,
        }
    }

    /// Of what others leave, how much one namespace may have.
    fn of_rest(self, rest: u64) -> u64 {
        let kept = match self {
            Self::Sender => 4,
            Self::Forward => 8,
            Self::Delivery => 16,
        };
        rest - rest / kept
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: u64,
    /// Of one thing that is written.
    longest: u64,
    all: Arc<Tally>,
    namespaces: RwLock<HashMap<Arc<str>, Arc<Tally>>>,
}

impl Budget {
    /// Of a log of so many bytes, which takes payloads of up to `longest`.
    pub(crate) fn new(bytes: u64, longest: u64) -> Self {
        Self { bytes, longest, all: Arc::default(), namespaces: RwLock::default() }
    }

    /// How many bytes the log may have.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// With what the streams of a namespace are counted. Costs the namespaces there are where it is new.
    pub(crate) fn tally(&self, namespace: &str) -> Arc<Tally> {
        let known = self.namespaces.read().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned();
        known.unwrap_or_else(|| {
            let mut namespaces = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
            // Those without a stream count nothing.
            namespaces.retain(|_, tally| Arc::strong_count(tally) > 1);
            namespaces.entry(namespace.into()).or_insert_with(|| Tally::within(&self.all)).clone()
        })
    }

    /// Room for so many bytes more of a namespace while the log's files are so long. They count until what this returns is
    /// dropped, once they are written.
    pub(crate) fn room(&self, namespace: &Arc<str>, from: From, bytes: u64, used: u64) -> Result<Counts, NoRoom> {
        let most = from.of_files(self.bytes);
        if used >= most {
            return Err(NoRoom::Log { used, most });
        }
        let tally = self.tally(namespace);
        let before = tally.bytes();
        // First counted: of several who ask at a time none gets what another one has.
        let counts = tally.count(bytes);
        let with_it = tally.bytes();
        // They change one after the other.
        let others = self.all.bytes().saturating_sub(with_it);
        let most = from.of_rest((self.bytes / 8 * 5).saturating_sub(others));
        // What ends something else is let through whole, if it is one thing.
        let is_whole = from == From::Delivery && bytes <= self.longest;
        if before >= most || (!is_whole && with_it > most) {
            return Err(NoRoom::Namespace { namespace: namespace.clone(), waiting: before, most });
        }
        Ok(counts)
    }

    /// Whether the log's files are so long that it should be looked for what nobody needs.
    pub(crate) fn is_tight(&self, used: u64) -> bool {
        used > self.bytes / 4 * 3
    }

    /// Bytes of all events that wait.
    pub(crate) fn all_waiting(&self) -> u64 {
        self.all.bytes()
    }

    /// The namespaces that have most, at most `most` of them, and how much.
    pub(crate) fn largest(&self, most: usize) -> Vec<(String, u64)> {
        let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        let waiting = namespaces.iter().map(|(namespace, tally)| (namespace.to_string(), tally.bytes()));
        let mut all: Vec<(String, u64)> = waiting.filter(|(_, bytes)| *bytes > 0).collect();
        all.sort_unstable_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use knoll_journal::{
        MemoryDisk,
        events::{EventLog, EventOptions, Write, Written},
    };

    use super::*;

    /// Namespaces whose events wait in a log of 1 MiB.
    struct Bench {
        log: EventLog,
        budget: Budget,
    }

    impl Bench {
        fn new() -> Self {
            let options = EventOptions { reserve_bytes: 0, ..EventOptions::default() };
            let (log, _) = EventLog::open(Arc::new(MemoryDisk::default()), options).expect("opens");
            Self { log, budget: Budget::new(1 << 20, 64 << 10) }
        }

        fn write(&mut self, write: Write) -> Written {
            self.log.write(&[write]).remove(0).expect("is written")
        }

        /// Writes events of a namespace until there is no room for more of it: how much it has.
        fn fill(&mut self, namespace: &str, from: From) -> u64 {
            let name = Bytes::copy_from_slice(namespace.as_bytes());
            let Written::Stream(stream) = self.write(Write::CreateStream { name: name.clone() }) else { panic!() };
            self.write(Write::CreateCursor { stream, name, parent: None, start: Some(0) });
            self.log.reader().tally(stream, &self.budget.tally(namespace));
            loop {
                let payload = Bytes::from_static(&[7; 1000]);
                let room = self.budget.room(&namespace.into(), from, payload.len() as u64, 0);
                if room.is_err() {
                    return self.budget.tally(namespace).bytes();
                }
                self.write(Write::Append { stream, time: 1, key: Bytes::new(), payload, decoded: None });
            }
        }
    }

    /// Whether there is no room for one more event of a thousand bytes within so many, or one was let through whole.
    fn is_about(bytes: u64, expected: u64) -> bool {
        (expected.saturating_sub(1000)..expected + 1100).contains(&bytes)
    }

    #[test]
    fn one_alone_has_most_and_leaves_something_for_each_who_comes() {
        let (mut bench, all) = (Bench::new(), (1 << 20) / 8 * 5);
        let first = bench.fill("a", From::Sender);
        assert!(is_about(first, all / 4 * 3), "{first}");
        let (mut left, mut others) = (all - first, 0);
        for namespace in ["b", "c", "d"] {
            let bytes = bench.fill(namespace, From::Sender);
            assert!(bytes > 0 && is_about(bytes, left / 4 * 3), "{namespace} has {bytes} of {left}");
            left = left.saturating_sub(bytes);
            others += bytes;
        }
        assert!(is_about(bench.fill("a", From::Sender), first), "it gets no more");
        assert_eq!(bench.budget.all_waiting(), first + others);
        assert_eq!(bench.budget.largest(1), [("a".to_owned(), first)]);
    }

    #[test]
    fn deliveries_go_on_where_senders_are_refused_and_what_they_make_where_they_send_nothing_on() {
        let (mut bench, all) = (Bench::new(), (1 << 20) / 8 * 5);
        for (from, part) in [(From::Sender, 4), (From::Forward, 8), (From::Delivery, 16)] {
            let bytes = bench.fill("a", from);
            assert!(is_about(bytes, all - all / part), "{from:?}: {bytes}");
        }
        let budget = &bench.budget;
        let refused = budget.room(&"a".into(), From::Sender, 1000, 0).expect_err("it has its part");
        let said = refused.to_string();
        assert!(said.starts_with("the events that wait in namespace a have the part of the event log"), "{said}");
        for (from, most) in [(From::Sender, 943_713), (From::Forward, 996_132)] {
            let refused = budget.room(&"b".into(), from, 0, most).expect_err("the log is as large");
            assert_eq!(refused, NoRoom::Log { used: most, most }, "{from:?}");
            assert!(budget.room(&"b".into(), from, 0, most - 1).is_ok(), "{from:?}");
        }
        assert!(budget.room(&"b".into(), From::Delivery, 0, 1 << 20).is_ok(), "the log itself says no");
    }

    #[test]
    fn what_is_being_written_counts() {
        let (budget, part) = (Budget::new(1 << 20, 64 << 10), (1 << 20) / 8 * 5 / 4 * 3);
        let ask = |bytes| budget.room(&"a".into(), From::Sender, bytes, 0);
        assert!(ask(part + 1).is_err(), "more than its part");
        let first = ask(part - 1000).expect("room");
        assert!(ask(1001).is_err());
        let second = ask(1000).expect("room");
        assert!(ask(0).is_err(), "it has its part");
        drop((first, second));
        assert_eq!(budget.all_waiting(), 0);
        assert!(ask(part).is_ok());
    }

    #[test]
    fn what_deliveries_make_is_let_through_whole_if_it_is_one_thing() {
        let (budget, part) = (Budget::new(1 << 20, 64 << 10), (1 << 20) / 8 * 5 / 16 * 15);
        let ask = |bytes| budget.room(&"a".into(), From::Delivery, bytes, 0);
        assert!(ask(part + 1).is_err(), "many things are no one thing");
        let held = ask(part - 1).expect("room");
        assert!(ask((64 << 10) + 1).is_err());
        let one = ask(64 << 10).expect("there was room for some of it");
        assert!(ask(0).is_err(), "there is none now");
        drop((held, one));
        assert_eq!(budget.all_waiting(), 0);
    }

    #[test]
    fn namespaces_without_a_stream_are_forgotten() {
        let budget = Budget::new(1 << 20, 64 << 10);
        let kept = budget.tally("kept");
        (0..100).for_each(|number| drop(budget.tally(&format!("gone-{number}"))));
        assert!(budget.namespaces.read().unwrap().len() <= 2);
        assert!(Arc::ptr_eq(&kept, &budget.tally("kept")));
    }
}
