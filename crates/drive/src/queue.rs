//! Which key is planned next. Knows keys and time, nothing of objects, and takes its time as an argument, so that the
//! simulation runs this very queue.
//!
//! A key is in flight at most once; woken meanwhile, it comes again afterwards. A key that failed waits longer each
//! time; one whose write the World has not yet heard of waits for that; one that panicked again and again is left alone
//! until its object changes. Hurried keys overtake all others.
//!
//! Costs: waking, taking and ending a key are logarithmic in the keys that wait; news from a watch touches only the
//! keys that waited for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use knoll_api::{Key, Kind};

/// A row, by its index, and a key of it.
pub type Id = (usize, Key);

/// First and longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(30));
/// Conflicts in a row after which a key no longer comes back as soon as it is woken.
const PATIENCE: u32 = 5;
/// Longest wait for the World to catch up with a write.
const LONGEST_BARRIER: Duration = Duration::from_secs(5);
/// First wait after a panic; doubled each time.
const PANIC_BACKOFF: Duration = Duration::from_millis(100);
/// Panics in a row after which a key is left alone until its object changes.
const QUARANTINE_AFTER: u32 = 3;
/// A key left alone is tried again after this long all the same: what made it panic may have been another object.
const QUARANTINE: Duration = Duration::from_secs(600);

/// How urgent a key is. The order is the order of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// A request waits for it.
    Hurried,
    /// Something changed.
    Normal,
    /// Everything is to be looked at again; no hurry.
    Spread,
    /// It has had more than its part: when nothing else is to be done.
    Resting,
}

const LANES: [Lane; 4] = [Lane::Hurried, Lane::Normal, Lane::Spread, Lane::Resting];

/// What the World must show before a key is planned again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// This kind, up to this revision.
    Revision(Kind, u64),
    /// That the object with this uid is gone or going.
    Going(Kind, Key, String),
    /// That the pod is bound or gone.
    Bound(Key),
}

impl Barrier {
    /// The object whose change may lift it; `None` when a revision does.
    fn object(&self) -> Option<(Kind, &Key)> {
        match self {
            Barrier::Revision(..) => None,
            Barrier::Going(kind, key, _) => Some((*kind, key)),
            Barrier::Bound(key) => Some((Kind::Pod, key)),
        }
    }
}

/// How the work of a key ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As planned.
    Well {
        /// What to wait for.
        barriers: Vec<Barrier>,
        /// Look again after this long.
        recheck: Option<Duration>,
    },
    /// An object was not as the World had it.
    Conflict {
        /// What to wait for.
        barriers: Vec<Barrier>,
    },
    /// Something failed.
    Badly {
        /// What to wait for.
        barriers: Vec<Barrier>,
    },
    /// Planning it or carrying its plan out panicked.
    Panicked,
}

/// Why a key is not planned now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is in line.
    Queued(Lane),
    /// It is being carried out.
    InFlight,
    /// It failed this often in a row and waits before it is tried again.
    BackingOff(u32),
    /// The World has not shown its last write yet.
    Behind(Vec<Barrier>),
    /// It panicked again and again.
    Quarantined,
    /// It asked to be looked at later.
    Recheck,
}

#[derive(Debug, Default)]
struct Slot {
    /// In this lane's line.
    queued: Option<Lane>,
    in_flight: bool,
    /// Woken while it could not be queued.
    again: Option<Lane>,
    /// How urgent it was when it was taken, while it is in flight.
    taken: Option<Lane>,
    /// How urgent it was when it last failed: trying again is as urgent.
    unfinished: Option<Lane>,
    failures: u32,
    panics: u32,
    /// Not before this, however often it is woken.
    not_before: Option<Duration>,
    /// At this time in any case.
    timer: Option<Duration>,
    barriers: Vec<Barrier>,
    /// When the barriers fall in any case.
    barriers_until: Duration,
}

impl Slot {
    fn is_quarantined(&self) -> bool {
        self.panics >= QUARANTINE_AFTER && self.not_before.is_some()
    }

    fn is_free(&self) -> bool {
        !self.in_flight && self.not_before.is_none() && self.barriers.is_empty()
    }
}

/// The keys that are to be planned. Times are since any fixed moment.
#[derive(Debug, Default)]
pub struct Queue {
    slots: HashMap<Id, Slot>,
    lines: [VecDeque<Id>; LANES.len()],
    timers: BTreeSet<(Duration, Id)>,
    /// Keys by the revisions and objects they wait for, and by when they no longer do.
    by_revision: BTreeMap<Kind, BTreeSet<(u64, Id)>>,
    by_object: BTreeMap<(Kind, Key), BTreeSet<Id>>,
    behind_until: BTreeSet<(Duration, Id)>,
    in_flight: usize,
    failing: usize,
}

impl Queue {
    /// Keys in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether a key of this lane or a more urgent one could be taken now.
    pub fn is_ready(&self, least: Lane) -> bool {
        self.lines[..=least as usize].iter().any(|line| !line.is_empty())
    }

    /// Keys in the line of a lane, counting those that have moved to a more urgent one since.
    pub fn queued(&self, lane: Lane) -> usize {
        self.lines[lane as usize].len()
    }

    /// Whether nothing is in line, in flight or waiting for the World. Rechecks may be due later.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.behind_until.is_empty() && !self.is_ready(Lane::Resting)
    }

    /// Whether the key is under way, or waits for the World to show what it wrote.
    pub fn is_busy(&self, id: &Id) -> bool {
        self.slots.get(id).is_some_and(|slot| slot.in_flight || !slot.barriers.is_empty())
    }

    /// The key has something to do.
    pub fn wake(&mut self, id: &Id, lane: Lane) {
        let slot = self.slots.entry(id.clone()).or_default();
        let lane = slot.unfinished.map_or(lane, |unfinished| unfinished.min(lane));
        if slot.is_free() {
            self.enqueue(id, lane);
        } else {
            slot.again = Some(slot.again.map_or(lane, |other| other.min(lane)));
        }
    }

    /// The key's own object changed: if it was left alone for its panics, it gets one more try.
    pub fn pardon(&mut self, id: &Id) {
        let Some(slot) = self.slots.get_mut(id).filter(|slot| slot.is_quarantined()) else { return };
        slot.not_before = None;
        slot.panics = QUARANTINE_AFTER - 1;
        if let Some(timer) = slot.timer.take() {
            self.timers.remove(&(timer, id.clone()));
        }
        slot.again = slot.again.or(Some(Lane::Normal));
        self.settle(id);
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
    pub fn take(&mut self, least: Lane) -> Option<(Id, Lane)> {
        for lane in &LANES[..=least as usize] {
            while let Some(id) = self.lines[*lane as usize].pop_front() {
                let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.queued == Some(*lane)) else { continue };
                slot.queued = None;
                (slot.taken, slot.unfinished) = (Some(*lane), None);
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

    /// A key that was taken is not to be planned now, but when nothing else is.
    pub fn rest(&mut self, id: &Id) {
        let Some(slot) = self.slots.get_mut(id).filter(|slot| slot.in_flight) else { return };
        slot.in_flight = false;
        slot.taken = None;
        slot.again = Some(slot.again.unwrap_or(Lane::Resting));
        self.in_flight -= 1;
        self.settle(id);
    }

    /// The key's work ended. `reached` says whether the World already shows something. Whether the key is left alone
    /// from now on.
    pub fn ended(&mut self, id: &Id, ended: Ended, now: Duration, reached: impl Fn(&Barrier) -> bool) -> bool {
        let Some(slot) = self.slots.get_mut(id).filter(|slot| slot.in_flight) else { return false };
        slot.in_flight = false;
        self.in_flight -= 1;
        let (taken, failed_before) = (slot.taken.take(), slot.failures > 0);
        slot.unfinished = taken.filter(|_| matches!(ended, Ended::Conflict { .. } | Ended::Badly { .. }));
        slot.again = slot.again.map(|lane| slot.unfinished.map_or(lane, |unfinished| unfinished.min(lane)));
        slot.panics = if ended == Ended::Panicked { slot.panics.saturating_add(1) } else { 0 };
        slot.failures = if matches!(ended, Ended::Well { .. }) { 0 } else { slot.failures.saturating_add(1) };
        let barriers = match ended {
            Ended::Well { barriers, recheck } => {
                slot.timer = recheck.and_then(|delay| now.checked_add(delay));
                barriers
            }
            Ended::Conflict { barriers } => {
                slot.timer = Some(now + backoff(BACKOFF.0, slot.failures));
                slot.not_before = slot.timer.filter(|_| slot.failures > PATIENCE);
                barriers
            }
            Ended::Badly { barriers } => {
                slot.timer = Some(now + backoff(BACKOFF.0, slot.failures));
                slot.not_before = slot.timer;
                barriers
            }
            Ended::Panicked => {
                let patient = slot.panics < QUARANTINE_AFTER;
                let wait = if patient { backoff(PANIC_BACKOFF, slot.panics) } else { QUARANTINE };
                slot.timer = Some(now + wait);
                slot.not_before = slot.timer;
                Vec::new()
            }
        };
        self.failing = self.failing + usize::from(slot.failures > 0) - usize::from(failed_before);
        let quarantined = slot.is_quarantined();
        if let Some(timer) = slot.timer {
            self.timers.insert((timer, id.clone()));
        }
        self.wait_for(id, barriers.into_iter().filter(|barrier| !reached(barrier)).collect(), now);
        self.settle(id);
        quarantined
    }

    fn wait_for(&mut self, id: &Id, barriers: Vec<Barrier>, now: Duration) {
        let Some(slot) = self.slots.get_mut(id).filter(|_| !barriers.is_empty()) else { return };
        for barrier in &barriers {
            match barrier {
                Barrier::Revision(kind, at) => {
                    self.by_revision.entry(*kind).or_default().insert((*at, id.clone()));
                }
                other => {
                    let object = other.object().map(|(kind, key)| (kind, key.clone()));
                    self.by_object.entry(object.unwrap_or((Kind::Pod, id.1.clone()))).or_default().insert(id.clone());
                }
            }
        }
        slot.barriers = barriers;
        slot.barriers_until = now + LONGEST_BARRIER;
        self.behind_until.insert((slot.barriers_until, id.clone()));
    }

    /// Takes down barriers of a key, those that `falls` says. When none is left the key may come again.
    fn lower(&mut self, id: &Id, falls: impl Fn(&Barrier) -> bool) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let (fallen, left) = std::mem::take(&mut slot.barriers).into_iter().partition(|barrier| falls(barrier));
        slot.barriers = left;
        let fallen: Vec<Barrier> = fallen;
        let over = slot.barriers.is_empty();
        if over {
            self.behind_until.remove(&(slot.barriers_until, id.clone()));
        }
        for barrier in fallen {
            match &barrier {
                Barrier::Revision(kind, at) => {
                    if let Some(waiting) = self.by_revision.get_mut(kind) {
                        waiting.remove(&(*at, id.clone()));
                    }
                }
                other => {
                    let Some(object) = other.object().map(|(kind, key)| (kind, key.clone())) else { continue };
                    if let Some(waiting) = self.by_object.get_mut(&object) {
                        waiting.remove(id);
                        if waiting.is_empty() {
                            self.by_object.remove(&object);
                        }
                    }
                }
            }
        }
        if over {
            self.settle(id);
        }
    }

    /// Queues a key that was woken while it could not be, if it can be now; forgets one with nothing to remember.
    fn settle(&mut self, id: &Id) {
        let Some(slot) = self.slots.get_mut(id).filter(|slot| slot.is_free()) else { return };
        if let Some(lane) = slot.again.take() {
            self.enqueue(id, lane);
        } else if slot.queued.is_none() && slot.timer.is_none() && slot.failures == 0 {
            self.slots.remove(id);
        }
    }

    /// The World shows everything of `kind` up to `revision`.
    pub fn reached(&mut self, kind: Kind, revision: u64) {
        while let Some((at, id)) = self.by_revision.get(&kind).and_then(|waiting| waiting.first()).cloned() {
            if at > revision {
                break;
            }
            self.lower(&id, |barrier| matches!(barrier, Barrier::Revision(of, at) if *of == kind && *at <= revision));
        }
    }

    /// An object came, changed or went. `reached` says whether the World now shows something.
    pub fn changed(&mut self, kind: Kind, key: &Key, reached: impl Fn(&Barrier) -> bool) {
        if self.by_object.is_empty() {
            return;
        }
        let waiting = self.by_object.get(&(kind, key.clone())).cloned().unwrap_or_default();
        for id in waiting {
            self.lower(&id, |barrier| barrier.object().is_some() && reached(barrier));
        }
    }

    /// Queues what is due. How many keys no longer wait for the World, because that took too long.
    pub fn tick(&mut self, now: Duration) -> u64 {
        while let Some((due, id)) = self.timers.first().filter(|(due, _)| *due <= now).cloned() {
            self.timers.remove(&(due, id.clone()));
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.timer = None;
            slot.not_before = None;
            slot.again = slot.again.or(slot.unfinished).or(Some(Lane::Normal));
            self.settle(&id);
        }
        let mut overdue = 0;
        while let Some((until, id)) = self.behind_until.first().filter(|(until, _)| *until <= now).cloned() {
            self.behind_until.remove(&(until, id.clone()));
            overdue += 1;
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.again = slot.again.or(Some(Lane::Normal));
            }
            self.lower(&id, |_| true);
        }
        overdue
    }

    /// When [`Queue::tick`] next has something to do.
    pub fn next_due(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(due, _)| *due);
        let behind = self.behind_until.first().map(|(until, _)| *until);
        timer.into_iter().chain(behind).min()
    }

    /// Keys that could not be planned well last time.
    pub fn failing(&self) -> usize {
        self.failing
    }

    /// Keys that wait, each with why; at most `most`, those that only asked to be looked at later last.
    pub fn waiting(&self, most: usize) -> Vec<(Id, Reason)> {
        let later =
            |slot: &Slot| !slot.in_flight && slot.failures == 0 && slot.barriers.is_empty() && slot.queued.is_none();
        let now = self.slots.iter().filter(|(_, slot)| !later(slot));
        let rest = self.slots.iter().filter(|(_, slot)| later(slot));
        now.chain(rest).take(most).map(|(id, slot)| (id.clone(), reason(slot))).collect()
    }
}

fn reason(slot: &Slot) -> Reason {
    if slot.in_flight {
        Reason::InFlight
    } else if slot.is_quarantined() {
        Reason::Quarantined
    } else if slot.failures > 0 {
        Reason::BackingOff(slot.failures)
    } else if !slot.barriers.is_empty() {
        Reason::Behind(slot.barriers.clone())
    } else {
        slot.queued.map_or(Reason::Recheck, Reason::Queued)
    }
}

/// Wait after this many failures in a row.
fn backoff(first: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (first * 2_u32.pow(doublings)).min(BACKOFF.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        (0, Key::new("a", name))
    }

    fn never(_: &Barrier) -> bool {
        false
    }

    fn well() -> Ended {
        Ended::Well { barriers: Vec::new(), recheck: None }
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
    fn a_key_that_rests_comes_when_no_other_does() {
        let mut queue = Queue::default();
        queue.wake(&id("x"), Lane::Normal);
        let (taken, _) = queue.take(Lane::Resting).expect("a key");
        queue.rest(&taken);
        queue.wake(&id("y"), Lane::Spread);
        assert!(queue.take(Lane::Normal).is_none(), "it is as urgent as nothing else");
        assert_eq!(queue.take(Lane::Resting), Some((id("y"), Lane::Spread)));
        assert_eq!(queue.take(Lane::Resting), Some((id("x"), Lane::Resting)));
        queue.wake(&id("x"), Lane::Normal);
        queue.ended(&taken, well(), Duration::from_secs(9), never);
        assert_eq!(queue.take(Lane::Resting), Some((id("x"), Lane::Normal)), "what is woken is woken as it was");
    }

    #[test]
    fn a_key_in_flight_comes_again_only_after_it_ended() {
        let mut queue = Queue::default();
        let now = Duration::from_secs(9);
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
        let mut now = Duration::from_secs(9);
        queue.wake(&id("x"), Lane::Normal);
        let mut waits = Vec::new();
        for _ in 0..16 {
            let (taken, _) = queue.take(Lane::Spread).expect("a key");
            queue.ended(&taken, Ended::Badly { barriers: Vec::new() }, now, never);
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
        let now = Duration::from_secs(9);
        queue.wake(&id("x"), Lane::Normal);
        let (taken, _) = queue.take(Lane::Spread).expect("a key");
        queue.ended(&taken, Ended::Conflict { barriers: Vec::new() }, now, never);
        assert!(queue.take(Lane::Spread).is_none());
        queue.wake(&id("x"), Lane::Normal);
        assert!(queue.take(Lane::Spread).is_some());
    }

    #[test]
    fn a_key_waits_until_the_world_shows_its_write_but_not_for_ever() {
        let mut queue = Queue::default();
        let now = Duration::from_secs(9);
        let barriers = vec![Barrier::Revision(Kind::Pod, 7)];
        for late in [false, true] {
            queue.wake(&id("x"), Lane::Normal);
            let (taken, _) = queue.take(Lane::Spread).expect("a key");
            queue.ended(&taken, Ended::Well { barriers: barriers.clone(), recheck: None }, now, never);
            queue.wake(&id("x"), Lane::Normal);
            queue.reached(Kind::Pod, 6);
            assert!(queue.take(Lane::Spread).is_none());
            if late {
                assert_eq!(queue.next_due(), Some(now + LONGEST_BARRIER));
                assert_eq!(queue.tick(now + LONGEST_BARRIER), 1);
            } else {
                queue.reached(Kind::Pod, 7);
            }
            let (taken, _) = queue.take(Lane::Spread).expect("a key");
            queue.ended(&taken, well(), now, never);
        }
    }

    #[test]
    fn a_recheck_comes_by_itself_and_an_earlier_plan_replaces_it() {
        let mut queue = Queue::default();
        let now = Duration::from_secs(9);
        let recheck = Ended::Well { barriers: Vec::new(), recheck: Some(Duration::from_secs(9)) };
        queue.wake(&id("x"), Lane::Normal);
        let (taken, _) = queue.take(Lane::Spread).expect("a key");
        queue.ended(&taken, recheck, now, never);
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(9)));
        queue.wake(&id("x"), Lane::Normal);
        let (taken, _) = queue.take(Lane::Spread).expect("a key");
        queue.ended(&taken, well(), now, never);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn a_key_waits_for_one_object_and_for_no_other() {
        let mut queue = Queue::default();
        let now = Duration::ZERO;
        let (gone, other) = (Key::new("a", "gone"), Key::new("a", "other"));
        queue.wake(&id("x"), Lane::Normal);
        let (taken, _) = queue.take(Lane::Spread).expect("a key");
        let barriers = vec![Barrier::Going(Kind::Secret, gone.clone(), "u".into()), Barrier::Bound(other.clone())];
        queue.ended(&taken, Ended::Well { barriers, recheck: None }, now, never);
        queue.wake(&id("x"), Lane::Hurried);
        queue.changed(Kind::Secret, &other, |_| true);
        queue.changed(Kind::Secret, &gone, |barrier| matches!(barrier, Barrier::Going(..)));
        assert!(queue.take(Lane::Spread).is_none(), "the pod is not bound yet");
        assert_eq!(queue.waiting(9), [(id("x"), Reason::Behind(vec![Barrier::Bound(other.clone())]))]);
        queue.changed(Kind::Pod, &other, |_| true);
        assert_eq!(queue.take(Lane::Spread), Some((id("x"), Lane::Hurried)));
        assert!(queue.by_object.is_empty() && queue.behind_until.is_empty());
    }

    #[test]
    fn a_key_that_panics_again_and_again_is_left_alone_until_its_object_changes() {
        let mut queue = Queue::default();
        let mut now = Duration::ZERO;
        queue.wake(&id("x"), Lane::Normal);
        for panics in 1..=QUARANTINE_AFTER {
            let (taken, _) = queue.take(Lane::Spread).expect("a try");
            assert_eq!(queue.ended(&taken, Ended::Panicked, now, never), panics == QUARANTINE_AFTER);
            if panics < QUARANTINE_AFTER {
                now = queue.next_due().expect("a time");
                queue.tick(now);
            }
        }
        queue.wake(&id("x"), Lane::Hurried);
        now += Duration::from_secs(60);
        queue.tick(now);
        assert!(queue.take(Lane::Spread).is_none());
        assert_eq!(queue.waiting(9), [(id("x"), Reason::Quarantined)]);

        queue.pardon(&id("x"));
        let (taken, _) = queue.take(Lane::Spread).expect("one more try");
        assert!(queue.ended(&taken, Ended::Panicked, now, never), "and no more");
        queue.pardon(&id("x"));
        let (taken, _) = queue.take(Lane::Spread).expect("the object changed again");
        queue.ended(&taken, well(), now, never);
        assert!(queue.slots.is_empty() && queue.timers.is_empty() && queue.failing() == 0);
    }

    #[test]
    fn what_a_request_waits_for_is_as_urgent_after_a_conflict() {
        let mut queue = Queue::default();
        let now = Duration::ZERO;
        let conflict = || Ended::Conflict { barriers: Vec::new() };
        // Something changed while it was in flight, or afterwards, or nothing did.
        for (during, after) in [(true, false), (false, true), (false, false)] {
            queue.wake(&id("x"), Lane::Hurried);
            let (taken, _) = queue.take(Lane::Spread).expect("a key");
            if during {
                queue.wake(&taken, Lane::Normal);
            }
            queue.ended(&taken, conflict(), now, never);
            if after {
                queue.wake(&taken, Lane::Normal);
            }
            queue.tick(now + Duration::from_secs(60));
            let (taken, lane) = queue.take(Lane::Spread).expect("another try");
            assert_eq!(lane, Lane::Hurried);
            queue.wake(&taken, Lane::Normal);
            queue.ended(&taken, well(), now, never);
            assert_eq!(queue.take(Lane::Spread).expect("it was woken").1, Lane::Normal, "it ended well");
            queue.ended(&taken, well(), now, never);
            assert!(queue.slots.is_empty());
        }
    }

    #[test]
    fn a_key_left_alone_is_tried_again_in_the_end() {
        let mut queue = Queue::default();
        let mut now = Duration::ZERO;
        queue.wake(&id("x"), Lane::Normal);
        for _ in 0..QUARANTINE_AFTER {
            let (taken, _) = queue.take(Lane::Spread).expect("a try");
            queue.ended(&taken, Ended::Panicked, now, never);
            now = queue.next_due().expect("a time");
            queue.tick(now);
        }
        assert!(now >= QUARANTINE);
        assert!(queue.take(Lane::Spread).is_some());
    }
}
