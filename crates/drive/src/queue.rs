//! Which key is planned next. Knows keys and time, nothing of objects.
//!
//! A key is in flight at most once; woken meanwhile, it comes again afterwards. A key that failed waits longer each
//! time; one whose write the World has not yet heard of waits for that. Hurried keys overtake all others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use knoll_api::{Key, Kind};
use tokio::time::Instant;

/// A row, by its index, and a key of it.
pub(crate) type Id = (usize, Key);

/// First and longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(30));
/// Conflicts in a row after which a key no longer comes back as soon as it is woken.
const PATIENCE: u32 = 5;
/// Longest wait for the World to catch up with a write.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// How urgent a key is. The order is the order of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// A request waits for it.
    Hurried,
    /// Something changed.
    Normal,
    /// Everything is to be looked at again; no hurry.
    Spread,
}

const LANES: [Lane; 3] = [Lane::Hurried, Lane::Normal, Lane::Spread];

/// What the World must show before a key is planned again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// This kind, up to this revision.
    Revision(Kind, u64),
    /// That the object with this uid is gone or going.
    Going(Kind, Key, String),
    /// That the pod is bound or gone.
    Bound(Key),
}

/// How the work of a key ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As planned.
    Well {
        /// What to wait for.
        holds: Vec<Hold>,
        /// Look again after this long.
        recheck: Option<Duration>,
    },
    /// An object was not as the World had it.
    Conflict {
        /// What to wait for.
        holds: Vec<Hold>,
    },
    /// Something failed.
    Badly {
        /// What to wait for.
        holds: Vec<Hold>,
    },
}

#[derive(Debug, Default)]
struct Slot {
    /// In this lane's line.
    queued: Option<Lane>,
    in_flight: bool,
    /// Woken while it could not be queued.
    again: Option<Lane>,
    failures: u32,
    /// Not before this, however often it is woken.
    not_before: Option<Instant>,
    /// At this time in any case.
    timer: Option<Instant>,
    holds: Vec<Hold>,
}

/// The keys that are to be planned.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    slots: HashMap<Id, Slot>,
    lines: [VecDeque<Id>; LANES.len()],
    timers: BTreeSet<(Instant, Id)>,
    held: BTreeMap<Id, Instant>,
    in_flight: usize,
}

impl Queue {
    /// Keys in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether a key of this lane or a more urgent one could be taken now.
    pub(crate) fn is_ready(&self, least: Lane) -> bool {
        self.lines[..=least as usize].iter().any(|line| !line.is_empty())
    }

    /// The key has something to do.
    pub(crate) fn wake(&mut self, id: &Id, lane: Lane) {
        let slot = self.slots.entry(id.clone()).or_default();
        if slot.in_flight || slot.not_before.is_some() || !slot.holds.is_empty() {
            slot.again = Some(slot.again.map_or(lane, |other| other.min(lane)));
            return;
        }
        self.enqueue(id, lane);
    }

    fn enqueue(&mut self, id: &Id, lane: Lane) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        if slot.queued.is_some_and(|queued| queued <= lane) {
            return;
        }
        // It stays in the slower line too; there its turn is skipped.
        slot.queued = Some(lane);
        self.lines[lane as usize].push_back(id.clone());
    }

    /// The next key, in flight from now on, with its urgency. None less urgent than `least`.
    pub(crate) fn take(&mut self, least: Lane) -> Option<(Id, Lane)> {
        for lane in &LANES[..=least as usize] {
            while let Some(id) = self.lines[*lane as usize].pop_front() {
                let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.queued == Some(*lane)) else { continue };
                slot.queued = None;
                slot.in_flight = true;
                if let Some(timer) = slot.timer.take() {
                    self.timers.remove(&(timer, id.clone()));
                }
                self.in_flight += 1;
                return Some((id, *lane));
            }
        }
        None
    }

    /// The key's work ended. `reached` says whether the World already shows something.
    pub(crate) fn ended(&mut self, id: &Id, ended: Ended, now: Instant, reached: impl Fn(&Hold) -> bool) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        slot.in_flight = false;
        self.in_flight -= 1;
        let holds = match ended {
            Ended::Well { holds, recheck } => {
                slot.failures = 0;
                slot.timer = recheck.and_then(|delay| now.checked_add(delay));
                holds
            }
            Ended::Conflict { holds } => {
                slot.failures = slot.failures.saturating_add(1);
                slot.timer = Some(now + backoff(slot.failures));
                slot.not_before = slot.timer.filter(|_| slot.failures > PATIENCE);
                holds
            }
            Ended::Badly { holds } => {
                slot.failures = slot.failures.saturating_add(1);
                slot.timer = Some(now + backoff(slot.failures));
                slot.not_before = slot.timer;
                holds
            }
        };
        slot.holds = holds;
        slot.holds.retain(|hold| !reached(hold));
        if let Some(timer) = slot.timer {
            self.timers.insert((timer, id.clone()));
        }
        if !slot.holds.is_empty() {
            self.held.insert(id.clone(), now + LONGEST_HOLD);
        }
        self.settle(id);
    }

    /// Queues a key that was woken while it could not be, if it can be now; forgets one with nothing to remember.
    fn settle(&mut self, id: &Id) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        if slot.in_flight || slot.not_before.is_some() || !slot.holds.is_empty() {
            return;
        }
        if let Some(lane) = slot.again.take() {
            self.enqueue(id, lane);
        } else if slot.queued.is_none() && slot.timer.is_none() && slot.failures == 0 {
            self.slots.remove(id);
        }
    }

    /// The World moved on: keys whose wait is over may come again.
    pub(crate) fn release(&mut self, reached: impl Fn(&Hold) -> bool) {
        let mut free = Vec::new();
        for id in self.held.keys() {
            let Some(slot) = self.slots.get_mut(id) else { continue };
            slot.holds.retain(|hold| !reached(hold));
            if slot.holds.is_empty() {
                free.push(id.clone());
            }
        }
        for id in free {
            self.held.remove(&id);
            self.settle(&id);
        }
    }

    /// Queues what is due. How many keys no longer wait for the World, because that took too long.
    pub(crate) fn tick(&mut self, now: Instant) -> u64 {
        while let Some((due, id)) = self.timers.first().cloned() {
            if due > now {
                break;
            }
            self.timers.pop_first();
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.timer = None;
            slot.not_before = None;
            slot.again = slot.again.or(Some(Lane::Normal));
            self.settle(&id);
        }
        let overdue: Vec<Id> = self.held.iter().filter(|(_, until)| **until <= now).map(|(id, _)| id.clone()).collect();
        for id in &overdue {
            self.held.remove(id);
            if let Some(slot) = self.slots.get_mut(id) {
                slot.holds.clear();
                slot.again = slot.again.or(Some(Lane::Normal));
            }
            self.settle(id);
        }
        u64::try_from(overdue.len()).unwrap_or_default()
    }

    /// When [`Queue::tick`] next has something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(due, _)| *due);
        let hold = self.held.values().min().copied();
        timer.into_iter().chain(hold).min()
    }

    /// Keys that could not be planned well last time, and how often in a row.
    pub(crate) fn failing(&self) -> usize {
        self.slots.values().filter(|slot| slot.failures > 0).count()
    }
}

/// Wait after this many failures in a row.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (BACKOFF.0 * 2_u32.pow(doublings)).min(BACKOFF.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        (0, Key::new("a", name))
    }

    fn never(_: &Hold) -> bool {
        false
    }

    fn well() -> Ended {
        Ended::Well { holds: Vec::new(), recheck: None }
    }

    fn drain(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.take(Lane::Spread)).map(|((_, key), _)| key.name).collect()
    }

    #[test]
    fn hurried_keys_overtake_and_each_key_comes_once() {
        let mut queue = Queue::default();
        queue.wake(&id("spread"), Lane::Spread);
        queue.wake(&id("first"), Lane::Normal);
        queue.wake(&id("second"), Lane::Normal);
        queue.wake(&id("second"), Lane::Normal);
        queue.wake(&id("spread"), Lane::Hurried);
        assert_eq!(drain(&mut queue), ["spread", "first", "second"]);
    }

    #[test]
    fn a_key_in_flight_comes_again_only_after_it_ended() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.wake(&id("x"), Lane::Normal);
        let (taken, _) = queue.take(Lane::Spread).expect("a key");
        queue.wake(&id("x"), Lane::Hurried);
        assert!(queue.take(Lane::Spread).is_none());
        queue.ended(&taken, well(), now, never);
        assert_eq!(queue.take(Lane::Spread), Some((id("x"), Lane::Hurried)));
        queue.ended(&taken, well(), now, never);
        assert!(queue.slots.is_empty(), "nothing is remembered of a key at rest");
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_limit() {
        let mut queue = Queue::default();
        let mut now = Instant::now();
        queue.wake(&id("x"), Lane::Normal);
        let mut waits = Vec::new();
        for _ in 0..16 {
            let (taken, _) = queue.take(Lane::Spread).expect("a key");
            queue.ended(&taken, Ended::Badly { holds: Vec::new() }, now, never);
            queue.wake(&id("x"), Lane::Hurried);
            assert!(queue.take(Lane::Spread).is_none(), "waking does not shorten the wait");
            let due = queue.next_due().expect("a time");
            waits.push(u64::try_from((due - now).as_millis()).unwrap_or_default());
            now = due;
            queue.tick(now);
        }
        assert_eq!(waits[..4], [5, 10, 20, 40]);
        assert_eq!(waits[15], 30_000);
    }

    #[test]
    fn a_conflict_waits_for_news_rather_than_for_time() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.wake(&id("x"), Lane::Normal);
        let (taken, _) = queue.take(Lane::Spread).expect("a key");
        queue.ended(&taken, Ended::Conflict { holds: Vec::new() }, now, never);
        assert!(queue.take(Lane::Spread).is_none());
        queue.wake(&id("x"), Lane::Normal);
        assert!(queue.take(Lane::Spread).is_some());
    }

    #[test]
    fn a_key_waits_until_the_world_shows_its_write_but_not_for_ever() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let holds = vec![Hold::Revision(Kind::Pod, 7)];
        for late in [false, true] {
            queue.wake(&id("x"), Lane::Normal);
            let (taken, _) = queue.take(Lane::Spread).expect("a key");
            queue.ended(&taken, Ended::Well { holds: holds.clone(), recheck: None }, now, never);
            queue.wake(&id("x"), Lane::Normal);
            queue.release(|hold| matches!(hold, Hold::Revision(_, at) if *at <= 6));
            assert!(queue.take(Lane::Spread).is_none());
            if late {
                assert_eq!(queue.next_due(), Some(now + LONGEST_HOLD));
                assert_eq!(queue.tick(now + LONGEST_HOLD), 1);
            } else {
                queue.release(|hold| matches!(hold, Hold::Revision(_, at) if *at <= 7));
            }
            let (taken, _) = queue.take(Lane::Spread).expect("a key");
            queue.ended(&taken, well(), now, never);
        }
    }

    #[test]
    fn a_recheck_comes_by_itself_and_an_earlier_plan_replaces_it() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let recheck = Ended::Well { holds: Vec::new(), recheck: Some(Duration::from_secs(9)) };
        queue.wake(&id("x"), Lane::Normal);
        let (taken, _) = queue.take(Lane::Spread).expect("a key");
        queue.ended(&taken, recheck, now, never);
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(9)));
        queue.wake(&id("x"), Lane::Normal);
        let (taken, _) = queue.take(Lane::Spread).expect("a key");
        queue.ended(&taken, well(), now, never);
        assert_eq!(queue.next_due(), None);
    }
}
