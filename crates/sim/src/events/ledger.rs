//! The model: for each subscriber a multiset of the events it took, beside those that were accepted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Tally,
    kept::Kept,
    subscribers::{self, LISTENERS, Listener},
};

/// How far what was taken may be from what is on disk, when the power is cut: progress is synced a fifth of a second
/// after it was written at the latest, and the log is given a turn each [`super::life::LONGEST_TURN`].
const UNSYNCED: Duration = Duration::from_millis(200);
/// What is done and not told to the log, of a subscriber that is sent less than that at a time.
const UNTOLD: u32 = 32;
/// What a full disk refused of progress is told again a second later, and is in the log a turn after that.
const TOLD_AGAIN: Duration = Duration::from_millis(1200);

/// Shared by all who take part in a life.
#[derive(Clone)]
pub(super) struct Ledger(Arc<Mutex<Entries>>);

struct Entries {
    run: u64,
    lives: u64,
    sent: u64,
    accepted: BTreeSet<u64>,
    refused: u64,
    /// When each subscriber took each event, by lives.
    taken: BTreeMap<(&'static str, u64), Vec<(u64, Duration)>>,
    /// How often an event may come to a subscriber in this life, of those that were sent before it.
    allowed: BTreeMap<(&'static str, u64), u32>,
    /// The first event of this life.
    first: u64,
    begun: Option<Instant>,
    /// When in this life the disk was full last: since when, and until when if it is so no more.
    full: Option<(Duration, Option<Duration>)>,
    failure: Option<String>,
}

impl Ledger {
    pub(super) fn new(run: u64) -> Ledger {
        Ledger(Arc::new(Mutex::new(Entries {
            run,
            lives: 0,
            sent: 0,
            accepted: BTreeSet::new(),
            refused: 0,
            taken: BTreeMap::new(),
            allowed: BTreeMap::new(),
            first: 0,
            begun: None,
            full: None,
            failure: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run, and which life it is.
    pub(super) fn life(&self) -> (u64, u64) {
        let entries = self.lock();
        (entries.run, entries.lives)
    }

    /// A life begins with this on disk.
    pub(super) fn begin_life(&self, kept: &Kept) {
        let mut entries = self.lock();
        entries.lives += 1;
        (entries.first, entries.begun, entries.full) = (entries.sent, None, None);
        entries.allowed.clear();
        for (uid, number, count) in kept.waits() {
            let of = |listener: &&Listener| {
                let behind = listener.behind.map(subscribers::uid);
                subscribers::uid(listener.name) == uid || behind.is_some_and(|behind| behind == uid)
            };
            for listener in LISTENERS.iter().filter(of) {
                *entries.allowed.entry((listener.name, number)).or_default() += count;
            }
        }
    }

    /// Its clock begins.
    pub(super) fn start_clock(&self) {
        self.lock().begun = Some(Instant::now());
    }

    /// Time in this life.
    pub(super) fn now(&self) -> Duration {
        self.lock().now()
    }

    /// The disk is full, or is so no more.
    pub(super) fn full(&self, is_full: bool) {
        let mut entries = self.lock();
        let now = entries.now();
        let since = entries.full.filter(|(_, until)| until.is_none_or(|until| now < until + TOLD_AGAIN));
        let since = since.map_or(now, |(since, _)| since);
        entries.full = Some((since, (!is_full).then_some(now)));
    }

    /// So many events are sent: the number of the first.
    pub(super) fn send(&self, count: u64) -> u64 {
        let mut entries = self.lock();
        entries.sent += count;
        entries.sent - count
    }

    /// They were accepted, or not.
    pub(super) fn answered(&self, numbers: std::ops::Range<u64>, accepted: bool) {
        let mut entries = self.lock();
        if accepted { entries.accepted.extend(numbers) } else { entries.refused += 1 }
    }

    /// A subscriber, or its dead letter sink, takes an event.
    pub(super) fn took(&self, listener: &'static Listener, number: u64) {
        let mut entries = self.lock();
        let (name, now, life, first) = (listener.name, entries.now(), entries.lives, entries.first);
        if number >= entries.sent || !listener.gets(number) {
            entries.failure.get_or_insert(format!("{name} took event {number}, which is none of its own"));
        }
        let taken = entries.taken.entry((name, number)).or_default();
        let before = taken.iter().filter(|(of, _)| *of == life).count();
        taken.push((life, now));
        let allowed = if number < first { entries.allowed.get(&(name, number)).copied().unwrap_or(0) } else { 1 };
        if before as u64 >= u64::from(allowed) {
            let said = format!("{name} took event {number} {} times, where the log has it {allowed} times", before + 1);
            entries.failure.get_or_insert(said);
        }
    }

    /// Something is wrong.
    pub(super) fn fail(&self, what: String) {
        self.lock().failure.get_or_insert(what);
    }

    /// What is wrong, if something is.
    pub(super) fn failure(&self) -> Result<(), String> {
        self.lock().failure.clone().map_or(Ok(()), Err)
    }

    /// Everything that was accepted is waited for by who has not had it, or is a dead letter.
    pub(super) fn check(&self, kept: &Kept) -> Result<(), String> {
        let lost = self.lock().missing(|uid, number| kept.waits_for(uid, number) > 0 || kept.has_letter(uid, number));
        let Some((name, number)) = lost.first() else { return Ok(()) };
        Err(format!("event {number} was accepted and is lost to {name}, and {} more so", lost.len() - 1))
    }

    /// What is at rest: everything was taken, or is a dead letter, and nobody waits for anything. What is not, otherwise.
    pub(super) fn unrest(&self, kept: &Kept) -> Option<String> {
        let missing = self.lock().missing(|uid, number| kept.has_letter(uid, number));
        let more = missing.len().saturating_sub(1);
        let first = missing.first().map(|(name, number)| format!("{name} did not get {number}, and {more} more"));
        first.or_else(|| kept.waits().next().map(|(uid, number, _)| format!("{uid} still waits for {number}")))
    }

    /// What will come once more after a crash is no more than what is promised.
    pub(super) fn check_repetitions(&self, kept: &Kept, is_power_cut: bool) -> Result<(), String> {
        let entries = self.lock();
        let (slack, end) = (UNSYNCED + 2 * super::life::LONGEST_TURN, entries.last());
        let since = if is_power_cut { end.saturating_sub(slack) } else { Duration::MAX };
        // What is refused of progress comes again as well, until it is told again.
        let full = entries.full.filter(|(_, until)| until.is_none_or(|until| end < until + TOLD_AGAIN + slack));
        let since = full.map_or(since, |(full, _)| full.min(since));
        for listener in LISTENERS.iter().filter(|listener| listener.is_seen()) {
            let (uid, name) = (subscribers::uid(listener.name), listener.name);
            let is_recent = |(life, at): &&(u64, Duration)| *life == entries.lives && *at >= since;
            let taken = entries.taken.range((name, 0)..=(name, u64::MAX)).flat_map(|(_, taken)| taken);
            let recent = taken.filter(is_recent).count() as u64;
            let waits = kept.waits().filter(|(of, ..)| *of == uid);
            let once = |number| u32::from(!entries.taken.contains_key(&(name, number)));
            let again: u64 = waits.map(|(_, number, count)| u64::from(count.saturating_sub(once(number)))).sum();
            let most = u64::from(subscribers::MOST_UNDER_WAY + subscribers::MOST_UNDER_WAY.max(UNTOLD)) + recent;
            if again > most {
                return Err(format!("{again} events come once more to {name}, where {most} may"));
            }
        }
        Ok(())
    }

    /// What the run came to.
    pub(super) fn count(&self, tally: &mut Tally) {
        let entries = self.lock();
        tally.accepted = entries.accepted.len() as u64;
        tally.refused = entries.refused;
        tally.delivered = entries.taken.values().map(|taken| taken.len() as u64).sum();
        tally.again = tally.delivered - entries.taken.len() as u64;
    }
}

impl Entries {
    fn now(&self) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    /// The last moment of this life at which something was taken.
    fn last(&self) -> Duration {
        let of_life = |(life, _): &&(u64, Duration)| *life == self.lives;
        self.taken.values().flatten().filter(of_life).map(|(_, at)| *at).max().unwrap_or_default()
    }

    /// What was accepted and is neither taken nor waited for, as `is_there` says by uids, by anybody on its way.
    fn missing(&self, is_there: impl Fn(&str, u64) -> bool) -> Vec<(&'static str, u64)> {
        let mut missing = Vec::new();
        for listener in LISTENERS.iter().filter(|listener| listener.is_seen()) {
            let ways: Vec<String> =
                [Some(listener.name), listener.behind].into_iter().flatten().map(subscribers::uid).collect();
            for number in self.accepted.iter().copied().filter(|number| listener.gets(*number)) {
                let is_taken = self.taken.contains_key(&(listener.name, number));
                if !is_taken && !ways.iter().any(|uid| is_there(uid, number)) {
                    missing.push((listener.name, number));
                }
            }
        }
        missing
    }
}
