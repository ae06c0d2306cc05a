//! One subscriber of a broker or channel: what it is given, what it is behind with, and whose turn is next.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use knoll_journal::events::{CursorId, Progress, Ranges, StreamId};
use tokio::task::AbortHandle;

use super::{
    lane::{At, Backlog, Held, Lane},
    limit::Limit,
    status::View,
};
use crate::topology::{Ordering, Subscribed};

/// In which stream an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    /// That of the broker or channel.
    Main,
    /// That of what this subscriber is behind with.
    Backlog,
}

/// An event of a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Item {
    pub(crate) stream: Stream,
    pub(crate) offset: u64,
}

/// Events that may be done with before the log is told, however few are sent at a time.
const MOST_UNTOLD: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) subscribed: Arc<Subscribed>,
    pub(crate) view: Arc<View>,
    pub(crate) main: Lane,
    pub(crate) backlog: Option<Backlog>,
    pub(crate) limit: Limit,
    /// How far it was when the worker began.
    recovered: Progress,
    ready: VecDeque<Item>,
    /// Who waits behind the one event of a key that is on its way.
    keys: HashMap<u64, VecDeque<Item>>,
    pub(crate) in_flight: usize,
    /// Events that it is done with and that the log was not told of, or is being told of.
    untold: usize,
    telling: usize,
    /// Whether new events are put aside, and how many are on their way there.
    is_put_aside: bool,
    leaving: usize,
}

impl Subscriber {
    pub(crate) fn new(
        subscribed: Arc<Subscribed>,
        view: Arc<View>,
        (stream, cursor): (StreamId, CursorId),
        recovered: Progress,
        most: u32,
    ) -> Self {
        let limit = Limit::new(most);
        let main = Lane::new(stream, cursor, recovered.watermark());
        let (ready, keys) = (VecDeque::new(), HashMap::new());
        let (in_flight, untold, telling, is_put_aside, leaving) = (0, 0, 0, false, 0);
        Self {
            subscribed,
            view,
            main,
            backlog: None,
            limit,
            recovered,
            ready,
            keys,
            in_flight,
            untold,
            telling,
            is_put_aside,
            leaving,
        }
    }

    fn is_ordered(&self) -> bool {
        self.subscribed.subscription.ordering == Ordering::Key
    }

    /// Whether it was done with this event of the broker or channel before the worker began, or came after it.
    pub(crate) fn was_settled(&self, offset: u64) -> bool {
        self.recovered.is_settled(offset)
    }

    /// Attempts that were made of it before the worker began: it was matched then, whatever the filter says now.
    pub(crate) fn attempts_before(&self, offset: u64) -> u32 {
        self.recovered.attempts(offset)
    }

    /// Where what was looked at before the worker began ends: what stands below is older than what it is behind with.
    pub(crate) fn recovered_to(&self) -> u64 {
        self.recovered.ahead().last().map_or_else(|| self.recovered.watermark(), |last| last + 1)
    }

    /// Whether new events are put aside, because older ones are.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_put_aside || self.backlog.as_ref().is_some_and(|backlog| backlog.len() > 0)
    }

    /// From now on new events are put aside.
    pub(crate) fn fall_behind(&mut self) {
        self.is_put_aside = true;
    }

    /// Whether it has caught up: nothing that was put aside is left, and it holds half of what it may.
    pub(crate) fn catch_up(&mut self, window: usize) {
        let has_none = self.leaving == 0 && self.backlog.as_ref().is_none_or(|backlog| backlog.len() == 0);
        if has_none && self.main.len() <= window / 2 {
            self.is_put_aside = false;
        }
    }

    /// Takes an event of the broker or channel as its own.
    pub(crate) fn hold(&mut self, offset: u64, key: Option<u64>) {
        let key = key.filter(|_| self.is_ordered());
        self.main.hold(offset, self.attempts_before(offset), key);
        self.ready.push_back(Item { stream: Stream::Main, offset });
    }

    /// Takes the next event that it is behind with as its own.
    pub(crate) fn hold_next(&mut self, key: Option<u64>) {
        let key = key.filter(|_| self.is_ordered());
        let offset = self.backlog.as_mut().and_then(|backlog| backlog.hold_next(key));
        self.ready.extend(offset.map(|offset| Item { stream: Stream::Backlog, offset }));
    }

    /// Stream and offset of the next event that it is behind with.
    pub(crate) fn backlog_start(&self) -> Option<(StreamId, u64)> {
        let backlog = self.backlog.as_ref()?;
        backlog.peek().map(|offset| (backlog.lane.stream, offset))
    }

    /// Notes that an event of the broker or channel is being put aside.
    pub(crate) fn put_aside(&mut self, offset: u64) {
        self.is_put_aside = true;
        self.leaving += 1;
        self.main.hold(offset, 0, None);
        if let Some(held) = self.main.get(offset) {
            held.at = At::Waiting;
        }
    }

    /// An event was put aside, and stands here now.
    pub(crate) fn add_to_backlog(&mut self, (stream, cursor): (StreamId, CursorId), offset: u64) {
        let empty = || Backlog::new(Lane::new(stream, cursor, 0), Vec::new(), Progress::default());
        self.backlog.get_or_insert_with(empty).add(offset);
    }

    /// How many more of the events that it is behind with may be held, the broker's or channel's being read up to
    /// `reached`. Two rounds are, so that they are read together.
    pub(crate) fn wants_backlog(&self, window: usize, reached: u64) -> usize {
        let Some(backlog) = self.backlog.as_ref().filter(|backlog| backlog.has_more()) else { return 0 };
        let is_early = self.is_ordered() && reached < self.recovered_to();
        if is_early || self.ready.len() >= self.limit.current() {
            return 0;
        }
        (2 * self.limit.current() - self.ready.len()).min(window.saturating_sub(backlog.lane.len()))
    }

    /// The event whose turn it is, if there is room for one.
    pub(crate) fn next(&mut self) -> Option<Item> {
        while self.in_flight < self.limit.current() && self.untold + self.telling < self.most_untold() {
            let item = self.ready.pop_front()?;
            let Some(held) = self.held(item) else { continue };
            let Some(key) = held.key.filter(|_| !held.has_turn) else { return Some(item) };
            match self.keys.get_mut(&key) {
                None => {
                    self.keys.insert(key, VecDeque::new());
                    if let Some(held) = self.held(item) {
                        held.has_turn = true;
                    }
                    return Some(item);
                }
                Some(waiting) => {
                    waiting.push_back(item);
                    if let Some(held) = self.held(item) {
                        held.at = At::Waiting;
                    }
                }
            }
        }
        None
    }

    /// How many events may be done with before the log is told: what was done and not told is done again after a crash, so no
    /// more than are under way.
    fn most_untold(&self) -> usize {
        self.limit.current().max(MOST_UNTOLD)
    }

    /// Whether the log is to be told, or it soon gets no event before that.
    pub(crate) fn is_to_be_told_of(&self) -> bool {
        2 * self.untold >= self.most_untold()
    }

    pub(crate) fn held(&mut self, item: Item) -> Option<&mut Held> {
        self.lane(item.stream)?.get(item.offset)
    }

    fn lane(&mut self, stream: Stream) -> Option<&mut Lane> {
        match stream {
            Stream::Main => Some(&mut self.main),
            Stream::Backlog => self.backlog.as_mut().map(|backlog| &mut backlog.lane),
        }
    }

    /// Stream and cursor of an event.
    pub(crate) fn place(&self, item: Item) -> Option<(StreamId, CursorId)> {
        match item.stream {
            Stream::Main => Some((self.main.stream, self.main.cursor)),
            Stream::Backlog => self.backlog.as_ref().map(|backlog| (backlog.lane.stream, backlog.lane.cursor)),
        }
    }

    pub(crate) fn started(&mut self, item: Item, task: AbortHandle) {
        self.in_flight += 1;
        if let Some(held) = self.held(item) {
            held.at = At::InFlight(task);
        }
    }

    /// An attempt failed, and is to be made again later. How often it failed now.
    pub(crate) fn failed(&mut self, item: Item) -> u32 {
        self.postpone(item);
        let Some(held) = self.held(item) else { return 0 };
        held.attempts += 1;
        held.attempts
    }

    /// An attempt was not made, and is to be made later.
    pub(crate) fn postpone(&mut self, item: Item) {
        self.in_flight -= 1;
        if let Some(held) = self.held(item) {
            held.at = At::Waiting;
        }
    }

    /// It is time to make it again.
    pub(crate) fn due(&mut self, item: Item) {
        if let Some(held) = self.held(item) {
            held.at = At::Ready;
            self.ready.push_front(item);
        }
    }

    /// An event that was held back was put aside.
    pub(crate) fn left(&mut self) {
        self.leaving -= 1;
    }

    /// An event is done with: the next one of its key has its turn.
    pub(crate) fn done(&mut self, item: Item) {
        let Some(held) = self.lane(item.stream).and_then(|lane| lane.release(item.offset)) else { return };
        self.untold += 1;
        if matches!(held.at, At::InFlight(_)) {
            self.in_flight -= 1;
        }
        let Some(key) = held.key.filter(|_| held.has_turn) else { return };
        match self.keys.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(next) => {
                if let Some(held) = self.held(next) {
                    (held.at, held.has_turn) = (At::Ready, true);
                }
                self.ready.push_front(next);
            }
            None => drop(self.keys.remove(&key)),
        }
    }

    /// The log is being told of everything that is done with.
    pub(crate) fn tell(&mut self) {
        self.telling += std::mem::take(&mut self.untold);
    }

    /// The log was told.
    pub(crate) fn told(&mut self) {
        self.telling = 0;
    }

    /// Says to the log what is done with. Of the broker's or channel's events those in `unread` were not looked at.
    pub(crate) fn say_settled(&mut self, item: Item, unread: &Ranges) {
        match item.stream {
            Stream::Main => self.main.say_settled(item.offset, unread),
            Stream::Backlog => {
                if let Some(backlog) = &mut self.backlog {
                    backlog.lane.say_settled(item.offset, &Ranges::default());
                }
            }
        }
    }

    /// Ends every attempt.
    pub(crate) fn abort(&self) {
        self.main.abort();
        if let Some(backlog) = &self.backlog {
            backlog.lane.abort();
        }
    }

    /// Tells what there is to see.
    pub(crate) fn show(&self) {
        let backlog = self.backlog.as_ref().map_or(0, Backlog::len);
        self.view.show(self.in_flight, self.main.len() as u64 + backlog, self.limit.current());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        delivery::Delivery,
        dispatch::lane::tests::place,
        topology::{Subscriber as Who, Subscription},
    };

    fn subscriber(ordering: Ordering, concurrency: u32) -> Subscriber {
        let subscription = Subscription { ordering, ..Subscription::new("ns", "t", "t", Who::Unresolved) };
        let subscribed = Arc::new(Subscribed { subscription, delivery: Delivery::default() });
        Subscriber::new(subscribed, Arc::default(), place(), Progress::default(), concurrency)
    }

    fn task() -> AbortHandle {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.spawn(async {}).abort_handle()
    }

    proptest! {
        #[test]
        fn events_of_one_key_are_under_way_one_at_a_time_and_in_order(
            keys in prop::collection::vec(prop::option::of(0_u64..4), 1..60),
            steps in prop::collection::vec((0_u8..4, any::<prop::sample::Index>()), 0..300),
            concurrency in 1_u32..8,
        ) {
            let mut subscriber = subscriber(Ordering::Key, concurrency);
            let task = task();
            let (mut given, mut under_way, mut waiting) = (0, Vec::new(), Vec::new());
            let mut done: BTreeMap<u64, u64> = BTreeMap::new();
            let count = keys.len() as u64;
            let end = (0..2 * count + 300).map(|at| (if at % 2 == 0 { 0 } else { 3 }, None));
            let steps = steps.into_iter().map(|(step, index)| (step, Some(index))).chain(end);
            for (step, index) in steps {
                let pick = |of: &Vec<Item>| (!of.is_empty()).then(|| index.map_or(0, |index| index.index(of.len())));
                match step {
                    0 if given < count => {
                        subscriber.hold(given, keys[given as usize]);
                        given += 1;
                    }
                    1 => if let Some(at) = pick(&under_way) {
                        let item = under_way.remove(at);
                        subscriber.failed(item);
                        waiting.push(item);
                    },
                    _ => {}
                }
                if let Some(at) = pick(&waiting) && (step == 2 || index.is_none()) {
                    subscriber.due(waiting.remove(at));
                }
                if let Some(at) = pick(&under_way) && step == 3 {
                    let item = under_way.remove(at);
                    subscriber.done(item);
                    if let Some(key) = keys[item.offset as usize] {
                        let before = done.insert(key, item.offset);
                        prop_assert!(before < Some(item.offset), "{} after {:?}", item.offset, before);
                    }
                }
                subscriber.tell();
                subscriber.told();
                while let Some(item) = subscriber.next() {
                    subscriber.started(item, task.clone());
                    under_way.push(item);
                }
                prop_assert!(under_way.len() <= concurrency as usize);
                prop_assert_eq!(subscriber.in_flight, under_way.len());
                let mut busy: Vec<u64> = under_way.iter().chain(&waiting).filter_map(|item| keys[item.offset as usize]).collect();
                let all = busy.len();
                busy.sort_unstable();
                busy.dedup();
                prop_assert_eq!(busy.len(), all, "a key is under way twice");
            }
            prop_assert_eq!((given, subscriber.main.len()), (count, 0), "everything is done at last");
            prop_assert!(subscriber.keys.is_empty() && subscriber.ready.is_empty());
        }
    }

    #[test]
    fn no_more_is_done_than_the_log_was_told_of_and_as_many_as_are_under_way() {
        let mut subscriber = subscriber(Ordering::Unordered, 4);
        (0..100).for_each(|offset| subscriber.hold(offset, None));
        let deliver_all = |subscriber: &mut Subscriber| {
            std::iter::from_fn(|| subscriber.next().inspect(|item| subscriber.done(*item))).count()
        };
        assert_eq!(deliver_all(&mut subscriber), MOST_UNTOLD);
        subscriber.tell();
        assert_eq!(deliver_all(&mut subscriber), 0);
        subscriber.told();
        assert_eq!(deliver_all(&mut subscriber), MOST_UNTOLD);
    }

    #[test]
    fn the_log_is_to_be_told_before_anything_waits_for_that() {
        let mut subscriber = subscriber(Ordering::Unordered, 4);
        (0..100).for_each(|offset| subscriber.hold(offset, None));
        let mut done = 0;
        while !subscriber.is_to_be_told_of() {
            let item = subscriber.next().expect("nothing waits yet");
            subscriber.done(item);
            done += 1;
        }
        assert!((8..MOST_UNTOLD).contains(&done), "{done}");
        assert!(subscriber.next().is_some(), "and nothing does while it is told");
        subscriber.tell();
        assert!(!subscriber.is_to_be_told_of());
    }

    #[test]
    fn who_is_behind_catches_up_once_nothing_that_was_put_aside_is_left() {
        let mut subscriber = subscriber(Ordering::Unordered, 4);
        let main = |offset| Item { stream: Stream::Main, offset };
        subscriber.hold(0, None);
        subscriber.put_aside(1);
        assert!(subscriber.is_behind());
        subscriber.catch_up(8);
        assert!(subscriber.is_behind(), "one is on its way aside");
        subscriber.add_to_backlog(place(), 0);
        subscriber.left();
        subscriber.done(main(1));
        subscriber.catch_up(8);
        assert!(subscriber.is_behind(), "one is aside");
        assert_eq!(subscriber.wants_backlog(8, 2), 7);
        subscriber.hold_next(None);
        let aside = Item { stream: Stream::Backlog, offset: 0 };
        assert_eq!([subscriber.next(), subscriber.next(), subscriber.next()], [Some(main(0)), Some(aside), None]);
        subscriber.done(aside);
        subscriber.catch_up(8);
        assert!(!subscriber.is_behind());
    }
}
