//! The events of one stream that one subscriber is given: held from when they are found to be its own until it is done
//! with them.

use std::collections::{BTreeMap, VecDeque};

use knoll_journal::events::{CursorId, Progress, Ranges, StreamId};
use tokio::task::AbortHandle;

/// Where a held event is.
#[derive(Debug)]
pub(crate) enum At {
    /// Waiting for its turn.
    Ready,
    /// Waiting for another event of its key, for the time of its retry, or to be put aside.
    Waiting,
    /// Being delivered.
    InFlight(AbortHandle),
}

/// A held event.
#[derive(Debug)]
pub(crate) struct Held {
    /// Attempts that failed.
    pub(crate) attempts: u32,
    /// What it must come in order with: a hash, by which two keys may share an order.
    pub(crate) key: Option<u64>,
    /// Whether it is the one of its key that is on its way.
    pub(crate) has_turn: bool,
    pub(crate) at: At,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) stream: StreamId,
    pub(crate) cursor: CursorId,
    held: BTreeMap<u64, Held>,
    /// Every offset below is held, done with, or none of this subscriber's.
    passed: u64,
    /// What is done with and not yet said so to the log.
    unsaid: Ranges,
}

impl Lane {
    pub(crate) fn new(stream: StreamId, cursor: CursorId, passed: u64) -> Self {
        Self { stream, cursor, held: BTreeMap::new(), passed, unsaid: Ranges::default() }
    }

    /// How many events are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.held.keys().copied()
    }

    pub(crate) fn hold(&mut self, offset: u64, attempts: u32, key: Option<u64>) {
        self.held.insert(offset, Held { attempts, key, has_turn: false, at: At::Ready });
        self.pass(offset);
    }

    /// Notes that every offset up to this one was looked at.
    pub(crate) fn pass(&mut self, offset: u64) {
        self.passed = self.passed.max(offset + 1);
    }

    pub(crate) fn get(&mut self, offset: u64) -> Option<&mut Held> {
        self.held.get_mut(&offset)
    }

    /// Lets go of an event, which is done with.
    pub(crate) fn release(&mut self, offset: u64) -> Option<Held> {
        self.held.remove(&offset)
    }

    /// Says that an event that was let go of is done with, and with it everything around it that is neither held nor
    /// `unread`: so what is said is one range for each event that is held, and for each range that is not read yet,
    /// however many are done with.
    pub(crate) fn say_settled(&mut self, offset: u64, unread: &Ranges) {
        let first = self.held.range(..offset).next_back().map_or(0, |(held, _)| held + 1);
        let last = self.held.range(offset..).next().map_or(self.passed.max(offset + 1), |(held, _)| *held) - 1;
        let (first, last) = unread.gap_around(offset, (first, last.max(offset)));
        self.unsaid.insert(first, last);
    }

    /// What is to be said, once.
    pub(crate) fn take_unsaid(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.unsaid).iter().collect()
    }

    pub(crate) fn abort(&self) {
        for held in self.held.values() {
            if let At::InFlight(task) = &held.at {
                task.abort();
            }
        }
    }
}

/// The stream of a subscriber that is behind: all events in it are its own.
#[derive(Debug)]
pub(crate) struct Backlog {
    pub(crate) lane: Lane,
    /// What is not held yet, ascending.
    todo: VecDeque<(u64, u64)>,
    /// How far it was when the worker began.
    recovered: Progress,
}

impl Backlog {
    pub(crate) fn new(lane: Lane, todo: Vec<(u64, u64)>, recovered: Progress) -> Self {
        Self { lane, todo: todo.into(), recovered }
    }

    /// How many events are in it that are not done with.
    pub(crate) fn len(&self) -> u64 {
        let todo: u64 = self.todo.iter().map(|(first, last)| last - first + 1).sum();
        todo + self.lane.len() as u64
    }

    pub(crate) fn has_more(&self) -> bool {
        !self.todo.is_empty()
    }

    /// An event was put into it.
    pub(crate) fn add(&mut self, offset: u64) {
        match self.todo.back_mut() {
            Some((_, last)) if *last + 1 == offset => *last = offset,
            _ => self.todo.push_back((offset, offset)),
        }
    }

    /// The offset that comes next.
    pub(crate) fn peek(&self) -> Option<u64> {
        self.todo.front().map(|(first, _)| *first)
    }

    /// Holds the next one.
    pub(crate) fn hold_next(&mut self, key: Option<u64>) -> Option<u64> {
        let offset = self.pop()?;
        self.lane.hold(offset, self.recovered.attempts(offset), key);
        Some(offset)
    }

    fn pop(&mut self) -> Option<u64> {
        let range = self.todo.front_mut()?;
        let offset = range.0;
        if range.0 == range.1 {
            self.todo.pop_front();
        } else {
            range.0 += 1;
        }
        Some(offset)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::BTreeSet, sync::OnceLock};

    use knoll_journal::{
        MemoryDisk,
        events::{EventLog, EventOptions, Write, Written},
    };
    use proptest::prelude::*;

    use super::*;

    /// A stream and a cursor of it: only a log makes them.
    pub(crate) fn place() -> (StreamId, CursorId) {
        static PLACE: OnceLock<(StreamId, CursorId)> = OnceLock::new();
        *PLACE.get_or_init(made)
    }

    fn made() -> (StreamId, CursorId) {
        let disk = std::sync::Arc::new(MemoryDisk::default());
        let (mut log, _) = EventLog::open(disk, EventOptions::default()).expect("opens");
        let Ok(Written::Stream(stream)) = log.write(&[Write::CreateStream { name: "s".into() }]).remove(0) else {
            panic!("no stream")
        };
        let cursor = Write::CreateCursor { stream, name: "c".into(), parent: None, start: None };
        let Ok(Written::Cursor(cursor)) = log.write(&[cursor]).remove(0) else { panic!("no cursor") };
        (stream, cursor)
    }

    proptest! {
        /// What is lost when this is wrong is an event, so it is held against a plain set.
        #[test]
        fn what_is_said_to_be_settled_is_never_held_and_is_all_that_was_released(
            gaps in prop::collection::vec(1_u64..4, 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
            early in 0_usize..60,
            holes in prop::collection::vec((0_u64..120, 0_u64..4), 0..8),
        ) {
            let (stream, cursor) = place();
            let mut lane = Lane::new(stream, cursor, 0);
            let offsets: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut unread = Ranges::default();
            holes.iter().for_each(|(first, more)| unread.insert(*first, first + more));
            offsets.iter().for_each(|offset| unread.remove(*offset, *offset));
            let (now, later) = offsets.split_at(early.min(offsets.len()));
            now.iter().for_each(|offset| lane.hold(*offset, 0, None));
            let (mut released, mut said) = (BTreeSet::new(), Ranges::default());
            let mut left: Vec<u64> = now.to_vec();
            let mut coming = later.iter();
            for index in order {
                if let Some(offset) = coming.next() {
                    lane.hold(*offset, 0, None);
                    left.push(*offset);
                }
                let Some(offset) = (!left.is_empty()).then(|| left.remove(index.index(left.len()))) else { break };
                lane.release(offset);
                lane.say_settled(offset, &unread);
                released.insert(offset);
                for (first, last) in lane.take_unsaid() {
                    prop_assert!(lane.offsets().all(|held| held < first || held > last));
                    prop_assert_eq!(unread.count(first, last), 0);
                    said.insert(first, last);
                }
                prop_assert!(released.iter().all(|offset| said.around(*offset).is_some()));
                prop_assert!(said.len() <= lane.len() + unread.len() + 1, "{:?}", said);
                // What nobody looked at yet is not said.
                prop_assert!(said.last() <= offsets.iter().copied().filter(|offset| *offset < lane.passed).max());
            }
        }
    }

    #[test]
    fn a_backlog_is_worked_off_in_order_across_what_was_settled_before() {
        let (stream, cursor) = place();
        let mut backlog = Backlog::new(Lane::new(stream, cursor, 2), vec![(2, 3), (7, 7)], Progress::starting_at(2));
        backlog.add(8);
        backlog.add(9);
        backlog.add(12);
        assert_eq!((backlog.len(), backlog.peek()), (6, Some(2)));
        let taken: Vec<u64> = std::iter::from_fn(|| backlog.hold_next(None)).collect();
        assert_eq!((taken, backlog.has_more(), backlog.len()), (vec![2, 3, 7, 8, 9, 12], false, 6));
        backlog.lane.release(7);
        backlog.lane.say_settled(7, &Ranges::default());
        assert_eq!((backlog.len(), backlog.lane.take_unsaid()), (5, vec![(4, 7)]));
    }
}
