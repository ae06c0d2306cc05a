//! The loop: owns the World and the queue, plans, and sends errands out.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use knoll_api::{Key, Kind, Object, labels, table::Table};
use knoll_plan::{Changed, FollowedRevision, Observation, Rows, ScaleDecision, Want, World};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::Instant,
};

use crate::{
    counters::{Counters, count},
    execute::{Done, Errand, Executor},
    mailbox::Mailbox,
    publish::Publisher,
    queue::{Ended, Hold, Id, Lane, Queue},
    watch::{Seen, Sighting},
};

/// Reports taken in before the next keys are planned.
const BATCH: usize = 256;
/// Keys planned before the next reports are taken in. Hurried keys do not count.
const PLANS: usize = 16;
/// Errands under way: above this, only hurried keys and those of the normal lane are planned.
const SPREAD_UNDER_WAY: usize = 16;
/// Errands under way: above this, only hurried keys are planned.
const UNDER_WAY: usize = 128;
/// Objects whose next change is hurried.
const HURRIED: usize = 4096;
/// How long that change may take to come.
const HURRY: Duration = Duration::from_secs(5);
/// How often digests that nobody asks for any more are forgotten.
const TIDY: Duration = Duration::from_secs(600);
/// How long errands may take to end at shutdown.
const LEAVE: Duration = Duration::from_secs(5);
/// The ConfigMap whose change concerns every decider.
const AUTOSCALER_CONFIG: &str = "config-autoscaler";

/// What the loop hears.
pub(crate) struct Inputs {
    pub(crate) sightings: mpsc::Receiver<Sighting>,
    pub(crate) decisions: Mailbox<Key, Option<ScaleDecision>>,
    pub(crate) digests: mpsc::Receiver<Observation>,
    /// The table that the gateway routes by.
    pub(crate) applied: watch::Receiver<Arc<Table>>,
}

/// The loop's state.
pub(crate) struct Control {
    world: World,
    rows: Rows,
    queue: Queue,
    seen: Progress,
    /// Objects that a hurried plan wrote: what their change wakes is hurried too.
    hurried: BTreeMap<(Kind, Key), Instant>,
    followed: BTreeMap<Key, FollowedRevision>,
    follow: Mailbox<Key, Option<FollowedRevision>>,
    publisher: Publisher,
    executor: Executor,
    running: JoinSet<Done>,
    counters: Arc<Counters>,
}

/// How far the World is.
#[derive(Default)]
struct Progress {
    revisions: BTreeMap<Kind, u64>,
}

impl Progress {
    /// Whether every kind was listed once.
    fn is_complete(&self) -> bool {
        self.revisions.len() == Kind::ALL.len()
    }

    fn reached(&self, world: &World, hold: &Hold) -> bool {
        match hold {
            Hold::Revision(kind, at) => self.revisions.get(kind).is_some_and(|revision| revision >= at),
            Hold::Going(kind, key, uid) => world
                .meta(*kind, key)
                .is_none_or(|meta| meta.uid.as_ref() != Some(uid) || meta.deletion_timestamp.is_some()),
            Hold::Bound(key) => world.pods.get(key).is_none_or(|pod| {
                pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref().is_some_and(|node| !node.is_empty()))
            }),
        }
    }
}

impl Control {
    pub(crate) fn new(
        world: World,
        rows: Rows,
        executor: Executor,
        publisher: Publisher,
        follow: Mailbox<Key, Option<FollowedRevision>>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            world,
            rows,
            queue: Queue::default(),
            seen: Progress::default(),
            hurried: BTreeMap::new(),
            followed: BTreeMap::new(),
            follow,
            publisher,
            executor,
            running: JoinSet::new(),
            counters,
        }
    }

    /// Runs until `shutdown`, then lets what is under way end. An error when an errand panicked or no watch is left.
    pub(crate) async fn run(
        mut self,
        mut inputs: Inputs,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Option<JoinError>> {
        let mut shutdown = pin!(shutdown);
        let mut batch = Vec::with_capacity(BATCH);
        let mut tidy_at = Instant::now() + TIDY;
        loop {
            self.dispatch();
            let due = self.next_due().unwrap_or(tidy_at).min(tidy_at);
            let more = self.seen.is_complete() && self.queue.is_ready(self.least_urgent());
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                decisions = inputs.decisions.take() => self.decided(decisions),
                Some(done) = self.running.join_next(), if !self.running.is_empty() => self.done(done?),
                got = inputs.sightings.recv_many(&mut batch, BATCH) => {
                    if got == 0 {
                        return Err(None);
                    }
                    self.sighted(batch.drain(..));
                }
                Some(observation) = inputs.digests.recv() => self.observed(observation, Lane::Normal),
                Ok(()) = inputs.applied.changed() => {
                    let applied = inputs.applied.borrow_and_update().clone();
                    for observation in self.publisher.applied(&applied) {
                        self.observed(observation, Lane::Normal);
                    }
                }
                () = ready(more) => {}
                () = tokio::time::sleep_until(due) => {}
            }
            let now = Instant::now();
            let overdue = self.queue.tick(now);
            if overdue > 0 {
                self.counters.overdue.fetch_add(overdue, std::sync::atomic::Ordering::Relaxed);
            }
            self.publish(now);
            if now >= tidy_at {
                tidy_at = now + TIDY;
                self.tidy(now);
            }
        }
        self.leave().await
    }

    /// Lets errands end; those that take too long are dropped, which the next start makes good.
    async fn leave(mut self) -> Result<(), Option<JoinError>> {
        let all = async {
            while let Some(done) = self.running.join_next().await {
                done?;
            }
            Ok(())
        };
        tokio::time::timeout(LEAVE, all).await.unwrap_or(Ok(()))
    }

    fn next_due(&self) -> Option<Instant> {
        self.queue.next_due().into_iter().chain(self.publisher.due()).min()
    }

    /// The least urgent lane that may be served now.
    fn least_urgent(&self) -> Lane {
        match self.queue.in_flight() {
            0..SPREAD_UNDER_WAY => Lane::Spread,
            SPREAD_UNDER_WAY..UNDER_WAY => Lane::Normal,
            _ => Lane::Hurried,
        }
    }

    /// Plans what may be planned now.
    fn dispatch(&mut self) {
        if !self.seen.is_complete() {
            return;
        }
        let now = Timestamp::now();
        let mut left = PLANS;
        loop {
            let least = if left == 0 { Lane::Hurried } else { self.least_urgent() };
            let Some((id, lane)) = self.queue.take(least) else { return };
            left = if lane == Lane::Hurried { left } else { left - 1 };
            self.plan(id, lane, now);
        }
    }

    fn plan(&mut self, id: Id, lane: Lane, now: Timestamp) {
        let row = self.rows.all()[id.0];
        let plan = (row.plan)(&self.world, &id.1, now);
        count(&self.counters.planned);
        if lane == Lane::Hurried {
            count(&self.counters.hurried);
        }
        if plan.wants.is_empty() {
            let ended = Ended::Well { holds: Vec::new(), recheck: plan.recheck };
            self.queue.ended(&id, ended, Instant::now(), |_| true);
            return;
        }
        if lane == Lane::Hurried {
            self.hurry(&plan.wants);
        }
        tracing::trace!(row = row.name, key = %id.1, wants = plan.wants.len(), ?lane, "acting");
        let errand = Errand { id, row: row.name, of: row.of, wants: plan.wants, recheck: plan.recheck };
        self.running.spawn(self.executor.clone().carry_out(errand));
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
            self.observed(Observation::Decision { revision, decision }, Lane::Hurried);
        }
    }

    fn observed(&mut self, observation: Observation, lane: Lane) {
        for changed in self.world.observe(observation) {
            self.changed(&changed, lane);
        }
    }

    fn done(&mut self, done: Done) {
        for observation in done.observations {
            self.observed(observation, Lane::Normal);
        }
        let (world, seen) = (&self.world, &self.seen);
        self.queue.ended(&done.id, done.ended, Instant::now(), |hold| seen.reached(world, hold));
    }

    fn sighted(&mut self, batch: impl Iterator<Item = Sighting>) {
        let was_complete = self.seen.is_complete();
        for Sighting { kind, revision, seen } in batch {
            let changes = match seen {
                Seen::Listed(objects) => self.world.replace(kind, objects),
                Seen::Changed(change) => self.world.apply(change),
                Seen::Bookmark => Vec::new(),
            };
            let reached = self.seen.revisions.entry(kind).or_default();
            *reached = revision.max(*reached);
            if was_complete {
                for changed in changes {
                    self.changed(&changed, Lane::Normal);
                }
            }
        }
        if !was_complete && self.seen.is_complete() {
            self.begin();
        }
        let (world, seen) = (&self.world, &self.seen);
        self.queue.release(|hold| seen.reached(world, hold));
    }

    /// Everything was listed: every key is planned once.
    fn begin(&mut self) {
        tracing::info!("every kind was listed; the controllers begin");
        for index in 0..self.rows.all().len() {
            self.wake_all(index, Lane::Normal);
        }
        let revisions: Vec<Key> = self.world.pod_autoscalers.keys().cloned().collect();
        revisions.into_iter().for_each(|revision| self.refollow(&revision));
    }

    fn wake_all(&mut self, row: usize, lane: Lane) {
        for key in self.world.keys(self.rows.all()[row].of) {
            self.queue.wake(&(row, key), lane);
        }
    }

    /// Wakes what a change concerns.
    fn changed(&mut self, changed: &Changed, lane: Lane) {
        let lane = lane.min(self.lane_of(changed));
        let woken = self.rows.woken(&self.world, changed);
        for id in &woken.keys {
            self.queue.wake(id, lane);
        }
        for row in woken.all {
            self.wake_all(row, Lane::Spread);
        }
        self.publisher.changed(changed);
        for revision in self.measured(changed) {
            self.refollow(&revision);
        }
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

    /// Revisions whose decider may differ after a change.
    fn measured(&self, changed: &Changed) -> BTreeSet<Key> {
        let mut revisions = BTreeSet::new();
        match changed {
            Changed::Config(name) if name == AUTOSCALER_CONFIG => {
                revisions.extend(self.world.pod_autoscalers.keys().cloned());
            }
            Changed::Object { before, after } => {
                for object in before.iter().chain(after) {
                    match object {
                        Object::PodAutoscaler(_) | Object::ServerlessService(_) => {
                            revisions.insert(object.key());
                        }
                        Object::Pod(pod) => {
                            let labels = pod.metadata.labels.as_ref();
                            let name = labels.and_then(|labels| labels.get(labels::serving::REVISION));
                            revisions.extend(name.map(|name| object.key().sibling(name.clone())));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        revisions
    }

    /// Tells the autoscaler what to follow for a revision, if that changed.
    fn refollow(&mut self, revision: &Key) {
        let followed = knoll_plan::decider(&self.world, revision);
        if self.followed.get(revision) == followed.as_ref() {
            return;
        }
        match &followed {
            Some(followed) => self.followed.insert(revision.clone(), followed.clone()),
            None => self.followed.remove(revision),
        };
        self.follow.put(revision.clone(), followed);
    }

    fn publish(&mut self, now: Instant) {
        if !self.seen.is_complete() {
            return;
        }
        self.publisher.publish(&self.world, now);
    }

    fn tidy(&mut self, now: Instant) {
        self.hurried.retain(|_, until| *until >= now);
        let failing = self.queue.failing();
        if failing > 0 {
            tracing::info!(failing, "keys that wait to be tried again");
        }
    }
}

/// Ends at once, or never.
fn ready(now: bool) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    if now { Box::pin(tokio::task::yield_now()) } else { Box::pin(std::future::pending()) }
}
