//! The loop: owns the World and the queue, plans, and sends work items out.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use knoll_api::{Key, Kind, Object, table::RoutingTable};
use knoll_broker::Adopted;
use knoll_client::rush::Rush;
use knoll_faults::{catch, caught};
use knoll_plan::{
    Change, Changed, DECIDER_KINDS, DuckKind, EventRecord, EventType, FollowedRevision, Observation, Rows,
    ScaleDecision, Sighting, SystemConfig, Want, Woken, World,
};
use knoll_sources::Applied;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    autoscaler::measured,
    brake::Brake,
    coalescing::CoalescingQueue,
    counters::{Counters, count},
    events::{self, EventPublisher, SourcePublisher},
    execute::{Done, Executor, WorkItem},
    failing::Failing,
    hearing::{newly, newly_applied, next_sightings, ready},
    inspect::{Controller, Inspect, Moment, Waiting, WantedGraph},
    progress::Progress,
    publish::Publisher,
    queue::{Ended, Id, Lane, Queue},
    role::Role,
    sweeps::{Sweeps, Whose},
    times::{DateWatch, Now},
    watch::{Seen, WatchReport},
};

/// Reports taken in before the next keys are planned.
const BATCH: usize = 256;
/// Keys planned before the next reports are taken in. Hurried keys do not count.
const PLANS: usize = 16;
/// Keys under way: above this, only hurried keys and those of the normal lane are planned.
const SPREAD_UNDER_WAY: usize = 16;
/// Keys under way: above this, only hurried keys are planned.
const UNDER_WAY: usize = 128;
/// How long nothing but what requests wait for is planned while they do.
const HELD: Duration = Duration::from_secs(5);
/// Work items under way above which, after that time, again only hurried keys are planned: others come to their turn
/// though requests for revisions without instances never cease.
const UNDER_WAY_IN_RUSH: usize = 2;
/// Objects whose next change is hurried.
const HURRIED: usize = 4096;
/// How long that change may take to come.
const HURRY: Duration = Duration::from_secs(5);
/// How often digests that nobody asks for any more are forgotten.
const TIDY: Duration = Duration::from_secs(600);
/// How often what the loop shows of itself is renewed, while it has something to do.
const SHOW: Duration = Duration::from_secs(1);
/// Waiting keys that are shown.
const SHOWN: usize = 200;
/// How often the World packs what nobody has read since the last time.
const AGE: Duration = Duration::from_secs(30);
/// How long work items may take to end at shutdown.
const LEAVE: Duration = Duration::from_secs(5);
/// The ConfigMap whose change concerns every decider.
const AUTOSCALER_CONFIG: SystemConfig = SystemConfig::Serving("config-autoscaler");

/// What the loop hears.
pub(crate) struct Inputs<'a> {
    pub(crate) reports: mpsc::Receiver<WatchReport>,
    pub(crate) decisions: CoalescingQueue<Key, Option<ScaleDecision>>,
    /// Digests, and what is seen of kinds that objects of Eventing refer to and no controller knows.
    pub(crate) observations: mpsc::Receiver<Observation>,
    /// What is seen of kinds that controllers do not know as types; nothing where nobody collects garbage.
    pub(crate) sightings: Option<mpsc::Receiver<Sighting>>,
    /// The table that the gateway routes by.
    pub(crate) applied: &'a mut watch::Receiver<Option<Arc<RoutingTable>>>,
    /// What the data plane of events acts on; nothing where it is not in this process.
    pub(crate) adopted: Option<Adopted>,
    /// Which sources run; nothing where they are not in this process.
    pub(crate) running: Option<watch::Receiver<Applied>>,
    /// Ends when the loop is to end.
    pub(crate) shutdown: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
}

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to.
    Shutdown,
    /// No watch is left.
    Deaf,
}

/// The loop's state.
pub(crate) struct ControlLoop {
    world: World,
    rows: Rows,
    queue: Queue,
    brake: Brake,
    seen: Progress,
    /// Which rows may plan, by index.
    on: Vec<bool>,
    sweeps: Sweeps,
    dates: DateWatch,
    routes: bool,
    scales: bool,
    inspect: Inspect,
    failing: Failing,
    /// Objects that a hurried plan wrote: what their change wakes is hurried too.
    hurried: BTreeMap<(Kind, Key), Instant>,
    follow: CoalescingQueue<Key, Option<FollowedRevision>>,
    rush: Rush,
    /// When the rush began that is still on.
    rushed: Option<Instant>,
    publisher: Publisher,
    events: Option<EventPublisher>,
    sources: Option<SourcePublisher>,
    /// Told which kinds are referred to that no controller knows.
    ducks: watch::Sender<BTreeSet<DuckKind>>,
    executor: Executor,
    running: JoinSet<Done>,
    counters: Arc<Counters>,
    /// Beginning of the queue's time.
    origin: Instant,
}

impl ControlLoop {
    pub(crate) fn new(
        role: &Role,
        executor: Executor,
        publisher: Publisher,
        (events, sources, ducks): (Option<EventPublisher>, Option<SourcePublisher>, watch::Sender<BTreeSet<DuckKind>>),
        follow: CoalescingQueue<Key, Option<FollowedRevision>>,
        rush: Rush,
        inspect: Inspect,
    ) -> Self {
        let counters = executor.counters.clone();
        Self {
            world: World::new(role.settings.clone()),
            rows: role.rows.clone(),
            queue: Queue::default(),
            brake: Brake::default(),
            seen: Progress::default(),
            on: vec![false; role.rows.all().len()],
            sweeps: Sweeps::default(),
            dates: DateWatch::new(&executor.clock),
            routes: role.routes,
            scales: role.scales,
            inspect,
            failing: Failing::default(),
            hurried: BTreeMap::new(),
            follow,
            rush,
            rushed: None,
            publisher,
            events,
            sources,
            ducks,
            executor,
            running: JoinSet::new(),
            counters,
            origin: Instant::now(),
        }
    }

    /// Time as the queue counts it.
    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Runs until it is told to end, then lets what is under way end.
    pub(crate) async fn run(mut self, inputs: Inputs<'_>) -> End {
        let Inputs {
            mut reports,
            decisions,
            mut observations,
            mut sightings,
            applied,
            adopted,
            mut running,
            mut shutdown,
        } = inputs;
        let (mut batch, mut sighted) = (Vec::with_capacity(BATCH), Vec::new());
        self.world.ducks.await_kinds();
        if sightings.is_some() {
            self.world.untyped.await_kinds();
        }
        let (mut tidy_at, mut age_at) = (Instant::now() + TIDY, Instant::now() + AGE);
        // What is shown is renewed a moment after the last event, too.
        let (mut show_at, mut stale) = (Instant::now(), true);
        loop {
            self.look_for_rush();
            self.dispatch();
            let due = self.next_due().unwrap_or(tidy_at).min(tidy_at).min(age_at);
            let due = if stale { due.min(show_at) } else { due };
            let mut slept = false;
            let more = self.queue.is_ready(self.least_urgent()) || self.may_sweep();
            let (rush, held) = (self.rush.clone(), self.rushed.map(|since| HELD.saturating_sub(since.elapsed())));
            tokio::select! {
                biased;
                () = shutdown.as_mut() => break,
                decisions = decisions.take() => self.decided(decisions),
                Some(done) = self.running.join_next(), if !self.running.is_empty() => {
                    self.done(done.expect("a panic is caught inside and nobody aborts"));
                }
                got = reports.recv_many(&mut batch, BATCH) => {
                    if got == 0 {
                        return End::Deaf;
                    }
                    self.reported(batch.drain(..));
                }
                () = next_sightings(sightings.as_mut(), &mut sighted) => {
                    sighted.drain(..).for_each(|sighting| self.sighted(sighting));
                }
                Some(wanted) = self.inspect.wanted() => self.draw(wanted),
                Some(observation) = observations.recv() => self.observed(observation, Lane::Normal),
                Ok(()) = applied.changed() => {
                    let table = applied.borrow_and_update().clone();
                    let observations = table.map(|table| self.publisher.applied(&table));
                    for observation in observations.into_iter().flatten() {
                        self.observed(observation, Lane::Normal);
                    }
                }
                adopted = newly(adopted.as_ref()) => {
                    let told = self.events.as_mut().and_then(|events| events.adopted(&adopted));
                    told.into_iter().for_each(|told| self.observed(told, Lane::Normal));
                }
                applied = newly_applied(running.as_mut()) => {
                    let told = self.sources.as_mut().map(|sources| sources.applied(applied));
                    told.into_iter().flatten().for_each(|told| self.observed(told, Lane::Normal));
                }
                () = ready(more) => {}
                () = rush.pass(held.unwrap_or_default()), if held.is_some_and(|left| !left.is_zero()) => {}
                () = tokio::time::sleep_until(due) => slept = true,
            }
            let overdue = self.queue.tick(self.elapsed());
            if overdue > 0 {
                self.counters.overdue.fetch_add(overdue, std::sync::atomic::Ordering::Relaxed);
            }
            let now = Instant::now();
            self.publish(now);
            stale |= !slept;
            if stale && now >= show_at {
                (show_at, stale) = (now + SHOW, false);
                self.show();
            }
            if now >= age_at {
                age_at = now + AGE;
                self.world.age();
                self.look_at_dates();
            }
            if now >= tidy_at {
                tidy_at = now + TIDY;
                self.tidy(now);
            }
        }
        Box::pin(self.leave()).await;
        End::Shutdown
    }

    /// Draws what somebody asked for. A panic costs that answer.
    fn draw(&self, wanted: WantedGraph) {
        if let Err(panic) = knoll_faults::catch(|| wanted.draw(&self.world)) {
            count(&self.counters.plan_panics);
            tracing::error!(panic, "drawing who sends what to whom panicked");
        }
    }

    /// Lets work items end; those that take too long are dropped, which the next start makes good.
    async fn leave(mut self) {
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(LEAVE, all).await.is_err() {
            tracing::warn!(left = self.running.len(), "writes did not end in time; the next start makes them good");
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let queue = self.queue.next_due().map(|due| self.origin + due);
        // One that has to wait for what is more urgent goes on when that has ended.
        let sweep = self.sweeps.next().filter(|(lane, _)| *lane <= self.least_urgent());
        let sweep = sweep.map(|(_, at)| self.origin + at);
        let publisher = self.publisher.due().filter(|_| self.is_routing());
        let events = self.events.as_ref().filter(|_| self.is_told_of_events()).and_then(EventPublisher::due);
        queue.into_iter().chain(publisher).chain(events).chain(sweep).min()
    }

    /// Notes whether requests wait for something, and since when.
    fn look_for_rush(&mut self) {
        self.rushed = self.rush.is_on().then(|| self.rushed.unwrap_or_else(Instant::now));
    }

    /// The least urgent lane that may be served now.
    fn least_urgent(&self) -> Lane {
        match self.queue.in_flight() {
            under_way if self.rushed.is_some_and(|since| under_way >= UNDER_WAY_IN_RUSH || since.elapsed() < HELD) => {
                Lane::Hurried
            }
            0..SPREAD_UNDER_WAY => Lane::Resting,
            SPREAD_UNDER_WAY..UNDER_WAY => Lane::Normal,
            _ => Lane::Hurried,
        }
    }

    /// Plans what may be planned now.
    fn dispatch(&mut self) {
        if self.may_sweep() {
            self.sweep();
        }
        let now = Now::by(&self.executor.clock);
        let mut left = PLANS;
        loop {
            let least = if left == 0 { Lane::Hurried } else { self.least_urgent() };
            let Some((id, lane)) = self.queue.take(least) else { return };
            if matches!(lane, Lane::Normal | Lane::Spread) && self.brake.holds(&id.1.namespace, self.elapsed()) {
                count(&self.counters.held);
                self.queue.rest(&id);
                continue;
            }
            left = match lane {
                Lane::Hurried => left,
                Lane::Normal | Lane::Spread => left - 1,
                // By itself: others may have come meanwhile.
                Lane::Resting => 0,
            };
            if !self.is_on(id.0) {
                // Its kinds went away. When they come back, every key is looked at.
                self.queue.ended(&id, Ended::Well { barriers: Vec::new(), recheck: None }, self.elapsed(), |_| true);
                continue;
            }
            let (begun, namespace) = (Instant::now(), id.1.namespace.clone());
            self.plan(id, lane, now);
            let took = begun.elapsed();
            self.brake.spent(&namespace, took, self.elapsed());
            if lane == Lane::Spread {
                self.sweeps.spent(took);
            }
        }
    }

    /// Whether the next few of all keys may be put in line: nothing as urgent is, and it is time.
    fn may_sweep(&self) -> bool {
        let next = self.sweeps.next();
        next.is_some_and(|(lane, at)| at <= self.elapsed() && lane <= self.least_urgent() && !self.queue.is_ready(lane))
    }

    /// Puts the next few of all keys in line.
    fn sweep(&mut self) {
        let now = self.elapsed();
        let Some((whose, lane, keys)) = self.sweeps.chunk(&self.world, now) else { return };
        match whose {
            Whose::Row(row) => keys.into_iter().for_each(|key| self.queue.wake(&(row, key), lane)),
            Whose::Autoscaler => keys.iter().for_each(|revision| self.refollow(revision)),
        }
    }

    /// Whether a controller may plan. What comes after the last row is the garbage collector's.
    fn is_on(&self, index: usize) -> bool {
        let row = if index < self.on.len() { Some(index) } else { self.rows.collector() };
        row.is_some_and(|row| self.on[row])
    }

    /// Looks again at which controllers may plan; those that may from now on look at all their keys.
    fn switch(&mut self) {
        let collected = self.is_on(self.on.len());
        for index in 0..self.on.len() {
            let row = self.rows.all()[index];
            let may = self.seen.may_plan(&row);
            if may && !self.on[index] {
                self.sweeps.begin(Whose::Row(index), row.of, Lane::Normal);
            } else if !may && self.on[index] {
                tracing::warn!(row = row.name, why = self.seen.hindrance(&row), "a controller rests");
            }
            self.on[index] = may;
        }
        if self.is_on(self.on.len()) && !collected {
            for (kind, key) in self.world.untyped.concerned() {
                self.queue.wake(&(self.rows.index_of(kind), key), Lane::Spread);
            }
        }
        if self.is_scaling() {
            self.sweeps.begin(Whose::Autoscaler, Kind::PodAutoscaler, Lane::Normal);
        }
        if self.on.iter().all(|on| *on) {
            tracing::info!("every kind was listed; all controllers plan");
        }
    }

    fn is_scaling(&self) -> bool {
        self.scales && self.seen.knows(DECIDER_KINDS)
    }

    fn is_routing(&self) -> bool {
        self.routes && self.seen.may_route()
    }

    /// Whether all is known that the data plane of events is told, and what decides about it. What it is not told of it
    /// deletes: that a kind is not served, for a moment or for good, says nothing of the objects there were.
    fn is_told_of_events(&self) -> bool {
        self.are_served(events::KINDS.iter().chain([&Kind::ConfigMap, &Kind::Secret]))
    }

    /// Whether everything there is of these kinds is known, and each is served.
    fn are_served<'a>(&self, kinds: impl IntoIterator<Item = &'a Kind>) -> bool {
        kinds.into_iter().all(|kind| self.seen.knows([kind]) && !self.seen.is_absent(*kind))
    }

    /// Shows how things stand.
    fn show(&self) {
        let number = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        let name = |kind: Kind| {
            if kind.group().is_empty() { kind.plural().into() } else { format!("{}.{}", kind.plural(), kind.group()) }
        };
        let sizes = self.world.sizes().into_iter();
        let lanes = [
            ("hurried", Lane::Hurried),
            ("normal", Lane::Normal),
            ("spread", Lane::Spread),
            ("resting", Lane::Resting),
        ];
        let rows = self.rows.all().iter();
        let waiting = self.queue.waiting(SHOWN).into_iter();
        let (_, others, other_bytes) = self.world.untyped.size();
        self.inspect.show(Moment {
            world: sizes
                .map(|s| (name(s.kind), number(s.objects), number(s.packed_bytes), number(s.decoded)))
                .chain([("other kinds".to_owned(), number(others), number(other_bytes), 0)])
                .collect(),
            queued: lanes.into_iter().map(|(name, lane)| (name, number(self.queue.queued(lane)))).collect(),
            in_flight: number(self.queue.in_flight()),
            failing: number(self.queue.failing()),
            sweeps: number(self.sweeps.len()),
            controllers: rows
                .map(|row| Controller { name: row.name, of: name(row.of), rests: self.seen.hindrance(row) })
                .collect(),
            waiting: waiting
                .map(|((row, key), why)| Waiting {
                    controller: self.rows.name(row),
                    key: key.to_string(),
                    why: format!("{why:?}"),
                })
                .collect(),
        });
    }

    fn plan(&mut self, id: Id, lane: Lane, now: Now) {
        count(&self.counters.planned);
        if lane == Lane::Hurried {
            count(&self.counters.hurried);
        }
        // A plan only reads: a panic leaves nothing half done.
        let now = now.of(&self.rows, id.0);
        let mut plan = match catch(|| self.rows.plan(id.0, &self.world, &id.1, now)) {
            Ok(plan) => plan,
            Err(panic) => return self.panicked(&id, &panic),
        };
        if lane == Lane::Hurried && self.rushed.is_some() && plan.leave_reports() {
            self.queue.wake(&id, Lane::Normal);
        }
        if plan.wants.is_empty() {
            let ended = Ended::Well { barriers: Vec::new(), recheck: plan.recheck };
            self.queue.ended(&id, ended, self.origin.elapsed(), |_| true);
            return;
        }
        if lane == Lane::Hurried {
            self.hurry(&plan.wants);
        }
        let (row, of) = (self.rows.name(id.0), self.kind_of(&id));
        tracing::trace!(row, key = %id.1, wants = plan.wants.len(), ?lane, "acting");
        let item = WorkItem { id, row, of, wants: plan.wants, recheck: plan.recheck };
        let executor = self.executor.clone();
        self.running.spawn(async move {
            let id = item.id.clone();
            let done = caught(executor.carry_out(item)).await;
            done.unwrap_or_else(|panic| Done {
                id,
                ended: Ended::Panicked,
                observations: Vec::new(),
                panic,
                failure: None,
            })
        });
    }

    /// The kind of a key, where controllers know it as a type.
    fn kind_of(&self, id: &Id) -> Option<Kind> {
        self.rows.all().get(id.0).map(|row| row.of)
    }

    /// A panic costs its key: it is told, tried again later each time, and left alone in the end.
    fn panicked(&mut self, id: &Id, panic: &str) {
        count(&self.counters.plan_panics);
        let quarantined = self.queue.ended(id, Ended::Panicked, self.origin.elapsed(), |_| true);
        let row = self.rows.name(id.0);
        let next = if quarantined {
            count(&self.counters.quarantined);
            "it is left alone until the object changes"
        } else {
            "it is tried again"
        };
        tracing::error!(row, key = %id.1, panic, quarantined, "a controller panicked; {next}");
        let Some(kind) = self.kind_of(id) else { return };
        let uid = self.world.meta(kind, &id.1).and_then(|meta| meta.uid.clone()).unwrap_or_default();
        self.executor.record(EventRecord {
            api_version: kind.api_version(),
            kind: kind.kind().to_owned(),
            key: id.1.clone(),
            uid,
            type_: EventType::Warning,
            reason: "ControllerPanicked".into(),
            message: format!("The controller {row} failed on this object ({panic}); {next}"),
        });
    }

    /// Marks what a hurried plan writes, so that the chain goes on in a hurry.
    fn hurry(&mut self, wants: &[Want]) {
        let until = Instant::now() + HURRY;
        for want in wants {
            let subject = match want {
                Want::Create(object) | Want::Update(object) => (object.kind(), object.key()),
                Want::Scale { kind, key, .. } => (*kind, key.clone()),
                _ => continue,
            };
            if self.hurried.len() < HURRIED {
                self.hurried.insert(subject, until);
            }
        }
    }

    fn decided(&mut self, decisions: BTreeMap<Key, Option<ScaleDecision>>) {
        for (revision, decision) in decisions {
            // Requests wait for more instances, and nobody for fewer.
            let before = self.world.observed.decisions.get(&revision).map(|before| before.desired);
            let more = decision.is_some_and(|decision| before.is_none_or(|before| decision.desired > before));
            let lane = if more { Lane::Hurried } else { Lane::Normal };
            self.observed(Observation::ScaleDecision { revision, decision }, lane);
        }
    }

    fn observed(&mut self, observation: Observation, lane: Lane) {
        for changed in self.world.observe(observation) {
            self.changed(&changed, lane);
        }
    }

    /// Takes in what is seen of kinds that controllers do not know as types.
    fn sighted(&mut self, sighting: Sighting) {
        let changes = catch(|| self.world.see(sighting)).unwrap_or_else(|panic| {
            count(&self.counters.plan_panics);
            tracing::error!(panic, "taking in an object of another kind panicked");
            Vec::new()
        });
        for changed in changes {
            let lane = if matches!(changed, Changed::Known(_)) { Lane::Spread } else { Lane::Normal };
            self.changed(&changed, lane);
        }
    }

    fn done(&mut self, done: Done) {
        if done.ended == Ended::Panicked {
            return self.panicked(&done.id, &done.panic);
        }
        for observation in done.observations {
            self.observed(observation, Lane::Normal);
        }
        if self.failing.is_news(&done.id, done.failure.as_deref()) {
            let (row, failure) = (self.rows.name(done.id.0), done.failure.unwrap_or_default());
            tracing::warn!(row, key = %done.id.1, error = failure, "a write failed: it is tried again, later each time");
        }
        let (world, seen) = (&self.world, &self.seen);
        self.queue.ended(&done.id, done.ended, self.origin.elapsed(), |barrier| seen.reached(world, barrier));
    }

    /// Takes a change in. Should that panic, the object is as far in as it came, and those it concerns are told.
    fn apply(&mut self, change: Change) -> Vec<Changed> {
        let (kind, key) = change.subject();
        let was_unreadable = self.world.is_unreadable(kind, &key);
        let changes = catch(|| self.world.apply(change)).unwrap_or_else(|panic| {
            count(&self.counters.plan_panics);
            tracing::error!(kind = kind.plural(), %key, panic, "taking in a change panicked");
            vec![Changed::Object { before: None, after: self.world.object(kind, &key) }]
        });
        if was_unreadable && changes.is_empty() {
            self.look_again(kind);
        }
        changes
    }

    /// Has everybody looked at again whom an object of `kind` may have concerned that nothing was known of.
    fn look_again(&mut self, kind: Kind) {
        for (index, row) in self.rows.all().iter().enumerate().filter(|(index, _)| self.on[*index]) {
            if row.wakes.iter().any(|(on, _)| *on == kind) {
                self.sweeps.begin(Whose::Row(index), row.of, Lane::Spread);
            }
        }
    }

    /// Takes in an object of a listing: at once, so that the World packs it before the next ones come.
    fn listed(&mut self, object: Object) -> Vec<Changed> {
        if self.world.note_listed(&object) { self.apply(Change::Put(object)) } else { Vec::new() }
    }

    /// Takes out what the listing that ends here has not named.
    fn unlisted(&mut self, kind: Kind) -> Vec<Changed> {
        let gone = self.world.end_listing(kind);
        gone.into_iter().flat_map(|key| self.apply(Change::Gone(kind, key))).collect()
    }

    fn reported(&mut self, batch: impl Iterator<Item = WatchReport>) {
        let mut news = false;
        for WatchReport { kind, revision, seen } in batch {
            let changes: Vec<Changed> = match seen {
                Seen::Begins => {
                    self.world.begin_listing(kind);
                    Vec::new()
                }
                Seen::Item(object) => self.listed(object),
                Seen::UnreadableItem(key) => {
                    self.world.note_unreadable(kind, key);
                    Vec::new()
                }
                Seen::Listed => {
                    news |= self.seen.listed(kind);
                    self.seen.heard(kind, revision);
                    if self.world.observed.absent.remove(&kind) {
                        self.look_again(kind);
                    }
                    self.unlisted(kind)
                }
                Seen::Absent => {
                    news |= self.seen.absent(kind);
                    self.world.observed.absent.insert(kind);
                    self.world.begin_listing(kind);
                    self.unlisted(kind)
                }
                Seen::Changed(change) => {
                    self.seen.heard(kind, revision);
                    self.apply(change)
                }
                Seen::Unreadable(key) => {
                    self.seen.heard(kind, revision);
                    self.world.note_unreadable(kind, key);
                    Vec::new()
                }
                Seen::Bookmark => {
                    self.seen.heard(kind, revision);
                    Vec::new()
                }
                Seen::Ahead(object) => self.apply(Change::Put(object)),
                Seen::Configured => {
                    self.seen.configured();
                    Vec::new()
                }
            };
            for changed in changes {
                if let Some((kind, key)) = changed.subject() {
                    let (world, seen) = (&self.world, &self.seen);
                    self.queue.changed(kind, &key, |barrier| seen.reached(world, barrier));
                }
                self.changed(&changed, Lane::Normal);
            }
            self.queue.reached(kind, if self.seen.is_absent(kind) { u64::MAX } else { revision });
        }
        if news {
            self.switch();
        }
    }

    /// Wakes what a change concerns.
    fn changed(&mut self, changed: &Changed, lane: Lane) {
        // A hurried plan is gone on with by the controller of what it wrote. Whoever looks on has time.
        let hurried = self.lane_of(changed);
        let of = changed.subject().map(|(kind, _)| kind);
        self.pardon(changed);
        let woken = self.woken(changed);
        for id in &woken.keys {
            let next = of.is_some() && of == self.kind_of(id);
            self.queue.wake(id, if next { lane.min(hurried) } else { lane });
        }
        for row in woken.all {
            self.sweeps.begin(Whose::Row(row), self.rows.all()[row].of, Lane::Spread);
        }
        self.publisher.changed(changed);
        if let Some(events) = &mut self.events {
            events.changed(changed, &self.world);
        }
        if let Some(sources) = &mut self.sources {
            sources.changed(changed);
        }
        if self.is_scaling() {
            if matches!(changed, Changed::Config(AUTOSCALER_CONFIG)) {
                self.sweeps.begin(Whose::Autoscaler, Kind::PodAutoscaler, Lane::Spread);
            }
            for revision in measured(changed) {
                self.refollow(&revision);
            }
        }
    }

    /// A key that was left alone for its panics is tried again when its object changed.
    fn pardon(&mut self, changed: &Changed) {
        if let Changed::Untyped { kind, key, .. } = changed {
            self.queue.pardon(&(self.rows.index_of(*kind), key.clone()));
        }
        let Changed::Object { .. } = changed else { return };
        let Some((kind, key)) = changed.subject() else { return };
        for index in self.rows.of(kind) {
            self.queue.pardon(&(index, key.clone()));
        }
    }

    /// Whom a change concerns. Where finding out panics, everybody of those rows is looked at again, in no hurry.
    fn woken(&self, changed: &Changed) -> Woken {
        let mut woken = Woken::default();
        for asked in self.rows.asked(changed) {
            match catch(|| self.rows.woken_of(asked, &self.world, changed)) {
                Ok(one) => {
                    woken.keys.extend(one.keys);
                    woken.all.extend(one.all);
                }
                Err(panic) => {
                    count(&self.counters.plan_panics);
                    let row = asked.rows.first().map(|index| self.rows.all()[*index].name);
                    tracing::error!(row, panic, "cannot tell whom a change concerns; all are planned again");
                    woken.all.extend(asked.rows);
                }
            }
        }
        woken.keys.retain(|(index, _)| self.is_on(*index));
        woken.all.retain(|index| self.on[*index]);
        woken
    }

    /// Whether a change was caused by a hurried plan. Only the first change of an object counts: what the node reports
    /// later is not waited for here.
    fn lane_of(&mut self, changed: &Changed) -> Lane {
        if self.hurried.is_empty() {
            return Lane::Normal;
        }
        let marked = changed.subject().and_then(|subject| self.hurried.remove(&subject));
        if marked.is_some_and(|until| until >= Instant::now()) { Lane::Hurried } else { Lane::Normal }
    }

    /// Tells the autoscaler what to follow for a revision; it knows what it follows already.
    fn refollow(&mut self, revision: &Key) {
        let followed = catch(|| knoll_plan::decider(&self.world, revision)).unwrap_or_else(|panic| {
            count(&self.counters.plan_panics);
            tracing::error!(%revision, panic, "the autoscaler cannot follow a revision");
            None
        });
        if followed.as_ref().is_none_or(|followed| followed.ready > 0) {
            self.rush.end(&revision.to_string());
        }
        self.follow.put(revision.clone(), followed);
    }

    fn publish(&mut self, now: Instant) {
        if let Some(kinds) = self.world.ducks.news() {
            self.ducks.send_replace(kinds);
        }
        if self.is_routing() {
            self.publisher.publish(&self.world, now);
        }
        if self.is_told_of_events()
            && let Some(told) = self.events.as_mut().and_then(|events| events.publish(&self.world, now))
        {
            self.observed(told, Lane::Normal);
        }
        // A source that they are not told of ends.
        if self.are_served(&events::SOURCE_KINDS)
            && let Some(sources) = &mut self.sources
        {
            sources.publish(&self.world);
        }
    }

    /// Has whoever goes by dates look again where the wall clock was set.
    fn look_at_dates(&mut self) {
        for index in self.dates.look(&self.executor.clock, &self.rows) {
            if self.on[index] {
                self.sweeps.begin(Whose::Row(index), self.rows.all()[index].of, Lane::Normal);
            }
        }
    }

    fn tidy(&mut self, now: Instant) {
        self.hurried.retain(|_, until| *until >= now);
        let failing = self.queue.failing();
        if failing > 0 {
            tracing::info!(failing, "keys that wait to be tried again");
        }
    }
}
