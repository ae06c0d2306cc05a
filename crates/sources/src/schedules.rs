//! Sources that are due by the clock: one timer for all of them.
//!
//! What is due next stands in an ordered set, and the timer waits for the first of it. It looks at the wall clock once a
//! minute at least, because clocks are set and machines sleep. A tick that comes late is sent once, however many were missed.
//! Where the clock was set back by more than a minute, schedules begin anew from what it says now; by less, nothing is due
//! until it has caught up, so that no tick comes twice.

mod shots;

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use knoll_api::Kind;
use knoll_broker::delivery::retry::Failure;
use knoll_faults::catch;
use tokio::{
    task::{AbortHandle, Id as TaskId, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use self::shots::{Shot, Shots};
use crate::{
    Clock, Id, Snapshots, Source, Sources, Work,
    applied::Board,
    sending::{Health, Outlet, complete},
    snapshot::Change,
    tick,
};

/// The clock is looked at as often as this.
const LOOK: Duration = Duration::from_secs(60);
/// A clock that is set back by less is waited for.
const SET_BACK: SignedDuration = SignedDuration::from_mins(1);
/// Ticks, and events, that one turn begins before others have one.
const A_TURN: usize = 128;
/// A tick whose namespace sends as many as it may is looked at again within this time.
const AGAIN: Duration = Duration::from_secs(1);

/// A source that is carried out.
struct Running {
    source: Arc<Source>,
    /// Told apart from an earlier one of this id.
    serial: u64,
    due: Option<Timestamp>,
    /// Ticks so far.
    told: u64,
    /// Shots that wait.
    waiting: usize,
    /// What is being sent.
    sending: Vec<AbortHandle>,
    is_skipping: bool,
    health: Health,
}

/// What sending came to.
type Sent = Result<(), Failure>;

/// See the module.
pub(crate) struct Schedules {
    outlet: Arc<Outlet>,
    clock: Clock,
    board: Board,
    seen: Sources,
    running: HashMap<Id, Running>,
    due: BTreeSet<(Timestamp, Id)>,
    shots: Shots,
    sends: JoinSet<Sent>,
    by_task: HashMap<TaskId, (Id, u64)>,
    /// Ticks that are being sent, by namespace.
    of_namespaces: HashMap<Arc<str>, usize>,
    serials: u64,
    last: Timestamp,
    is_first: bool,
}

impl Schedules {
    pub(crate) fn new(outlet: Arc<Outlet>, clock: Clock, board: Board) -> Self {
        Self {
            outlet,
            clock,
            board,
            seen: Sources::default(),
            running: HashMap::new(),
            due: BTreeSet::new(),
            shots: Shots::default(),
            sends: JoinSet::new(),
            by_task: HashMap::new(),
            of_namespaces: HashMap::new(),
            serials: 0,
            last: Timestamp::MIN,
            is_first: true,
        }
    }

    /// Works until `end`, then finishes what is due or being sent within the grace period. Dropped, it ends at once.
    pub(crate) async fn run(mut self, mut snapshots: Snapshots, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let mut has_snapshots = true;
        loop {
            let now = (self.clock)();
            let has_more = self.ticks(now);
            let newest = snapshots.borrow_and_update().clone();
            if let Some(newest) = newest {
                self.follow(newest, now);
            }
            self.shoot(Instant::now());
            let wake = if has_more { Instant::now() } else { self.wake((self.clock)()) };
            tokio::select! {
                biased;
                () = &mut end => break,
                changed = snapshots.changed(), if has_snapshots => has_snapshots = changed.is_ok(),
                Some(ended) = self.sends.join_next_with_id() => self.ended(ended),
                () = sleep_until(wake) => {}
            }
            if has_more {
                tokio::task::yield_now().await;
            }
        }
        self.finish().await;
    }

    /// When there is something to do next.
    fn wake(&self, now: Timestamp) -> Instant {
        let tick = self
            .due
            .first()
            .map_or(LOOK, |(due, _)| Duration::try_from(due.duration_since(now)).unwrap_or_default().min(LOOK));
        let tick = Instant::now() + tick;
        self.shots.first().filter(|_| self.has_room()).map_or(tick, |shot| shot.min(tick))
    }

    fn has_room(&self) -> bool {
        self.sends.len() < self.outlet.config.most_at_once
    }

    /// Takes in what is due. Whether more is than one turn takes.
    fn ticks(&mut self, now: Timestamp) -> bool {
        if self.last.duration_since(now) > SET_BACK {
            self.begin_anew(now);
        }
        self.last = now;
        for _ in 0..A_TURN {
            match self.due.first() {
                Some((due, _)) if *due <= now => {}
                _ => return false,
            }
            if let Some((due, id)) = self.due.pop_first() {
                self.tick(&id, due, now);
            }
        }
        true
    }

    /// The clock was set back.
    fn begin_anew(&mut self, now: Timestamp) {
        tracing::info!(%now, sources = self.due.len(), "the clock was set back: schedules begin anew from now");
        for (_, id) in std::mem::take(&mut self.due) {
            let due = self.running.get(&id).map(|running| running.source.clone());
            self.set_due(&id, due.and_then(|source| tick::first(&source, now)));
        }
    }

    fn set_due(&mut self, id: &Id, due: Option<Timestamp>) {
        let Some(running) = self.running.get_mut(id) else { return };
        if let Some(before) = std::mem::replace(&mut running.due, due) {
            self.due.remove(&(before, id.clone()));
        }
        self.due.extend(due.map(|due| (due, id.clone())));
    }

    fn tick(&mut self, id: &Id, due: Timestamp, now: Timestamp) {
        let Some(running) = self.running.get_mut(id) else { return };
        running.due = None;
        running.told += 1;
        let source = running.source.clone();
        if running.waiting + running.sending.len() >= self.outlet.config.most_of_one {
            self.outlet.metrics.skipped.count(id.kind);
            if !std::mem::replace(&mut running.is_skipping, true) {
                let (kind, namespace, name, most) =
                    (id.kind.kind(), &*id.namespace, &*id.name, self.outlet.config.most_of_one);
                tracing::warn!(kind, namespace, name, most, "ticks are skipped: the sink does not keep up");
            }
        } else {
            running.waiting += 1;
            running.is_skipping = false;
            let jitter =
                if matches!(source.work, Ok(Work::Ping(_))) { self.outlet.config.jitter } else { Duration::ZERO };
            self.shots.aim(Shot { id: id.clone(), serial: running.serial }, jitter);
        }
        let told = running.told;
        if let Some(why) = self.schedule(&source, |source| tick::next(source, due, told, now)) {
            self.board.tell([(&*source, Some(why))]);
        }
    }

    /// Puts a source where it is due next. One whose schedule panics is not carried out any more, and all others are: why.
    fn schedule(&mut self, source: &Source, when: impl FnOnce(&Source) -> Option<Timestamp>) -> Option<Arc<str>> {
        match catch(|| when(source)) {
            Ok(due) => {
                self.set_due(&source.id, due);
                None
            }
            Err(panic) => {
                self.outlet.metrics.panics.count(source.id.kind);
                let why = format!("its schedule panicked: {panic}");
                let (kind, namespace, name) = (source.id.kind.kind(), &*source.id.namespace, &*source.id.name);
                tracing::error!(kind, namespace, name, why, "a source is not carried out");
                self.set_due(&source.id, None);
                Some(why.into())
            }
        }
    }

    /// Sends what is to be sent by now, as far as there is room.
    fn shoot(&mut self, now: Instant) {
        for _ in 0..A_TURN {
            if !self.has_room() {
                return;
            }
            let Some(shot) = self.shots.take(now) else { return };
            let under_way = self.of_namespaces.get(&shot.id.namespace).copied().unwrap_or_default();
            if under_way < self.outlet.config.most_of_namespace {
                self.send(&shot);
            } else {
                self.shots.aim(shot, AGAIN);
            }
        }
    }

    fn send(&mut self, shot: &Shot) {
        let Some(running) = self.running.get_mut(&shot.id).filter(|running| running.serial == shot.serial) else {
            return;
        };
        running.waiting -= 1;
        let (source, outlet, clock) = (running.source.clone(), self.outlet.clone(), self.clock.clone());
        let task = self.sends.spawn(async move {
            let Some(made) = tick::event(&source) else { return Ok(()) };
            let completed = made.and_then(|mut event| complete(&mut event, &source, clock()).map(|()| event));
            match completed {
                Ok(event) => outlet.send(&source, &event).await,
                // It was tried out when the source was read.
                Err(error) => {
                    let (namespace, name) = (&*source.id.namespace, &*source.id.name);
                    tracing::error!(namespace, name, %error, "a source's event breaks a rule of CloudEvents");
                    outlet.metrics.failed.count(source.id.kind);
                    Ok(())
                }
            }
        });
        self.by_task.insert(task.id(), (shot.id.clone(), shot.serial));
        *self.of_namespaces.entry(shot.id.namespace.clone()).or_default() += 1;
        running.sending.push(task);
    }

    fn ended(&mut self, ended: Result<(TaskId, Sent), JoinError>) {
        let task = ended.as_ref().map_or_else(JoinError::id, |(task, _)| *task);
        let Some((id, serial)) = self.by_task.remove(&task) else { return };
        if let Entry::Occupied(mut under_way) = self.of_namespaces.entry(id.namespace.clone()) {
            *under_way.get_mut() -= 1;
            if *under_way.get() == 0 {
                under_way.remove();
            }
        }
        let running = self.running.get_mut(&id).filter(|running| running.serial == serial);
        let sent = match ended {
            Ok((_, sent)) => Some(sent),
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    self.outlet.metrics.panics.count(id.kind);
                    let (kind, namespace, name) = (id.kind.kind(), &*id.namespace, &*id.name);
                    let panic = knoll_faults::said(&*panic);
                    tracing::error!(kind, namespace, name, panic, "sending an event panicked: it is lost");
                }
                None
            }
        };
        if let Some(running) = running {
            running.sending.retain(|handle| handle.id() != task);
            if let Some(sent) = sent {
                running.health.hear(&running.source, sent);
            }
        }
    }

    /// Brings what is carried out up to a snapshot. Costs what changed.
    fn follow(&mut self, newest: Sources, now: Timestamp) {
        if std::mem::take(&mut self.is_first) {
            // What an earlier life told of, and is gone.
            self.board.keep(|id| !is_ours(id) || newest.get(id).is_some());
        }
        let changes: Vec<Change> = newest.since(&self.seen).collect();
        self.seen = newest;
        let mut told = Vec::new();
        for change in changes {
            match change {
                Change::Gone(id) => self.remove(&id),
                Change::Is(source) if is_ours(&source.id) => {
                    let problem = self.put(&source, now);
                    told.push((source, problem));
                }
                Change::Is(_) => {}
            }
        }
        self.board.tell(told.iter().map(|(source, problem)| (&**source, problem.clone())));
    }

    /// Carries a source out as it is now. Why it cannot be.
    fn put(&mut self, source: &Arc<Source>, now: Timestamp) -> Option<Arc<str>> {
        let id = &source.id;
        if self.running.get(id).is_some_and(|running| running.source.uid != source.uid) {
            self.remove(id);
        }
        if let Some(running) = self.running.get_mut(id) {
            let before = std::mem::replace(&mut running.source, source.clone());
            if tick::keeps_time(&before, source) {
                return None;
            }
            running.told = 0;
        } else {
            self.serials += 1;
            let running = Running {
                source: source.clone(),
                serial: self.serials,
                due: None,
                told: 0,
                waiting: 0,
                sending: Vec::new(),
                is_skipping: false,
                health: Health::default(),
            };
            self.running.insert(id.clone(), running);
        }
        let problem = self.schedule(source, |source| tick::first(source, now));
        source.work.as_ref().err().cloned().or(problem)
    }

    fn remove(&mut self, id: &Id) {
        self.set_due(id, None);
        if let Some(running) = self.running.remove(id) {
            running.sending.iter().for_each(AbortHandle::abort);
            self.board.forget([id]);
        }
    }

    /// Sends what waits, and lets what is being sent end.
    async fn finish(mut self) {
        let grace = self.outlet.config.grace;
        let all = async {
            while !(self.shots.is_empty() && self.sends.is_empty()) {
                self.shoot(Instant::now() + self.outlet.config.jitter);
                if let Some(ended) = self.sends.join_next_with_id().await {
                    self.ended(ended);
                }
            }
        };
        if timeout(grace, all).await.is_err() {
            tracing::warn!("events of sources are cut off after the grace period");
        }
    }
}

/// Whether it is due by the clock.
fn is_ours(id: &Id) -> bool {
    id.kind != Kind::ApiServerSource
}
