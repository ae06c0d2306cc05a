//! A process of controllers: the real rows and the loop's real queue over a World that lags behind the truth, kind by
//! kind.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use knoll_api::{Key, Kind, Object, clock::SteadyClock, stats::RevisionStat};
use knoll_drive::{
    Scaler,
    queue::{Barrier, Ended, Id, Lane, Queue},
    shows,
};
use knoll_plan::{Changed, DigestRequest, Observation, Rows, ScaleDecision, Settings, Want, World, table::Routing};

use crate::{
    clocks::Clocks,
    cluster::{Cluster, Denied},
};

/// A fault that a run is to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    Sound,
    /// A key that is woken while it is under way, or waits for the World to show its write, does not come again.
    LostWake,
    /// A revision that panics is given fewer instances than it was to have.
    ShrinksInPanic,
}

/// How far a World is, kind by kind.
pub(crate) type View = Arc<BTreeMap<Kind, u64>>;

/// The least instances of revisions that panic: the most that each was to have since it began to.
pub(crate) type Floors = BTreeMap<Key, i32>;

/// The wants of a key, under way.
#[derive(Clone, Debug)]
pub(crate) struct WorkItem {
    pub(crate) id: Id,
    pub(crate) left: VecDeque<Want>,
    versions: BTreeMap<(Kind, Key), String>,
    barriers: Vec<Barrier>,
    /// How far the World was when this was planned.
    pub(crate) view: View,
    /// Whose instances may not become fewer, when this was planned.
    floors: Floors,
    recheck: Option<Duration>,
}

/// The process.
pub(crate) struct ControllerManager {
    pub(crate) world: World,
    rows: Rows,
    /// How much of each kind's history the World has heard, and the revision that is.
    heard: BTreeMap<Kind, usize>,
    revisions: View,
    queue: Queue,
    pub(crate) items: Vec<WorkItem>,
    routing: Option<Routing>,
    pending: Vec<Changed>,
    scaler: Scaler,
    /// Images somebody waits for.
    pub(crate) asked: Vec<Want>,
    fault: Fault,
    clocks: Clocks,
    steady: SteadyClock,
    floors: Floors,
}

/// What came of a want.
pub(crate) struct Carried {
    pub(crate) want: Want,
    /// How far the World was when it was planned.
    pub(crate) view: View,
    pub(crate) floors: Floors,
    pub(crate) done: bool,
}

impl ControllerManager {
    /// A process that just started: it lists everything.
    pub(crate) fn start(cluster: &Cluster, settings: Settings, fault: Fault, clocks: &Clocks) -> ControllerManager {
        let rows = knoll_plan::rows(&settings);
        let mut manager = ControllerManager {
            world: World::new(settings),
            rows,
            heard: BTreeMap::new(),
            revisions: View::default(),
            queue: Queue::default(),
            items: Vec::new(),
            routing: None,
            pending: Vec::new(),
            scaler: Scaler::new(Arc::default()),
            asked: Vec::new(),
            fault,
            clocks: clocks.clone(),
            steady: clocks.steady(),
            floors: Floors::new(),
        };
        for kind in Kind::ALL {
            manager.list(cluster, *kind);
        }
        manager.pending.clear();
        for (index, row) in manager.rows.all().iter().enumerate() {
            for key in manager.world.keys(row.of) {
                manager.queue.wake(&(index, key), Lane::Normal);
            }
        }
        manager
    }

    /// Lists a kind again: hears of the end, not of what was between.
    pub(crate) fn list(&mut self, cluster: &Cluster, kind: Kind) {
        let objects: Vec<Object> = cluster.all(kind).cloned().collect();
        let changes = self.world.replace(kind, objects);
        self.heard.insert(kind, cluster.history(kind).len());
        Arc::make_mut(&mut self.revisions).insert(kind, cluster.revision());
        self.changed(changes, Lane::Normal);
        self.queue.reached(kind, cluster.revision());
    }

    /// Kinds of which there is something to hear.
    pub(crate) fn lagging(&self, cluster: &Cluster) -> Vec<Kind> {
        let heard = |kind: Kind| self.heard.get(&kind).copied().unwrap_or_default();
        cluster.histories().filter(|(kind, length)| heard(*kind) < *length).map(|(kind, _)| kind).collect()
    }

    /// Hears of the next few changes of a kind.
    pub(crate) fn hear(&mut self, cluster: &Cluster, kind: Kind, most: usize) {
        let from = self.heard.get(&kind).copied().unwrap_or_default();
        for (revision, change) in cluster.history(kind).iter().skip(from).take(most) {
            let changes = self.world.apply(change.clone());
            *self.heard.entry(kind).or_default() += 1;
            Arc::make_mut(&mut self.revisions).insert(kind, *revision);
            self.changed(changes, Lane::Normal);
            self.queue.reached(kind, *revision);
        }
    }

    /// Hears of something that is no object.
    pub(crate) fn observe(&mut self, observation: Observation) {
        let lane = if matches!(observation, Observation::ScaleDecision { .. }) { Lane::Hurried } else { Lane::Normal };
        let changes = self.world.observe(observation);
        self.changed(changes, lane);
    }

    fn changed(&mut self, changes: Vec<Changed>, lane: Lane) {
        for change in &changes {
            if let Some((kind, key)) = change.subject() {
                let (world, revisions) = (&self.world, &self.revisions);
                self.queue.changed(kind, &key, |barrier| shows(world, |kind| revisions.get(&kind).copied(), barrier));
            }
            let woken = self.rows.woken(&self.world, change);
            for row in woken.all {
                for key in self.world.keys(self.rows.all()[row].of) {
                    self.wake(&(row, key), Lane::Spread);
                }
            }
            for id in &woken.keys {
                self.wake(id, lane);
            }
        }
        self.pending.extend(changes);
    }

    fn wake(&mut self, id: &Id, lane: Lane) {
        let lost = self.fault == Fault::LostWake && self.queue.is_busy(id);
        if !lost {
            self.queue.wake(id, lane);
        }
    }

    /// Whether a key could be planned now.
    pub(crate) fn has_ready(&self) -> bool {
        self.queue.is_ready(Lane::Spread)
    }

    /// Plans the next key.
    pub(crate) fn plan(&mut self) {
        let Some((id, _)) = self.queue.take(Lane::Spread) else { return };
        let mut plan = (self.rows.all()[id.0].plan)(&self.world, &id.1, self.steady.now());
        if self.fault == Fault::ShrinksInPanic {
            plan.wants.iter_mut().for_each(halve);
        }
        let item = WorkItem {
            id,
            left: plan.wants.into(),
            versions: BTreeMap::new(),
            barriers: Vec::new(),
            view: self.revisions.clone(),
            floors: self.floors.clone(),
            recheck: plan.recheck,
        };
        if item.left.is_empty() { self.end(item, Ok(())) } else { self.items.push(item) }
    }

    /// Carries out the next want of an item. What it was, and what came of it.
    pub(crate) fn carry_on(&mut self, cluster: &mut Cluster, at: usize, deny: Option<Denied>) -> Option<Carried> {
        let item = self.items.get_mut(at)?;
        let want = item.left.pop_front()?;
        let (view, floors) = (item.view.clone(), item.floors.clone());
        let result = match deny {
            Some(denied) => Err(denied),
            None => cluster.carry_out(&want, &mut item.versions, self.clocks.wall()),
        };
        if let Ok(Some((kind, revision))) = &result {
            item.barriers.push(match &want {
                Want::Delete { kind, key, uid, .. } => Barrier::Going(*kind, key.clone(), uid.clone()),
                Want::Collect { object, uid, .. } => Barrier::Going(*kind, object.key.clone(), uid.clone()),
                Want::Bind { pod, .. } => Barrier::Bound(pod.clone()),
                _ => Barrier::Revision(*kind, *revision),
            });
        }
        if matches!(want, Want::ResolveDigest { .. }) && result.is_ok() {
            self.asked.push(want.clone());
        }
        let done = result.is_ok();
        if item.left.is_empty() || !done {
            let item = self.items.swap_remove(at);
            self.end(item, result.map(drop));
        }
        Some(Carried { want, view, floors, done })
    }

    fn end(&mut self, item: WorkItem, result: Result<(), Denied>) {
        let WorkItem { id, barriers, recheck, .. } = item;
        let ended = match result {
            Ok(()) => Ended::Well { barriers, recheck },
            Err(Denied::Conflict) => Ended::Conflict { barriers },
            Err(Denied::Failed) => Ended::Badly { barriers },
        };
        let (world, revisions) = (&self.world, &self.revisions);
        let reached = |barrier: &Barrier| shows(world, |kind| revisions.get(&kind).copied(), barrier);
        self.queue.ended(&id, ended, self.clocks.running(), reached);
    }

    /// When the next key asks to be looked at again, or a revision is decided, as the machine runs.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        self.queue.next_due().into_iter().chain(self.scaler.next_due()).min()
    }

    /// The gateway reports a second in which revisions had these requests at a time.
    ///
    /// # Errors
    /// When the decisions are not safe.
    pub(crate) fn report(&mut self, load: &BTreeMap<Key, f64>) -> Result<(), String> {
        let elapsed = self.clocks.running();
        for revision in self.world.keys(Kind::PodAutoscaler) {
            let followed = knoll_plan::decider(&self.world, &revision);
            self.scaler.follow(revision, followed, elapsed);
        }
        let report = |(revision, load): (&Key, &f64)| RevisionStat {
            revision: revision.clone(),
            average_concurrency: *load,
            request_count: *load,
            period_seconds: 1.0,
        };
        self.scaler.record(&load.iter().map(report).collect::<Vec<_>>(), elapsed);
        self.scale()
    }

    /// Decides what is due.
    ///
    /// # Errors
    /// When a revision that panics is to have fewer instances than it was to have already.
    pub(crate) fn scale(&mut self) -> Result<(), String> {
        self.scaler.tick(self.clocks.running());
        let now = self.steady.now();
        for (revision, decision) in self.scaler.take_decisions() {
            match decision.filter(|decision| decision.panic) {
                Some(decision) => {
                    let floor = self.floors.entry(revision.clone()).or_insert(decision.desired);
                    if decision.desired < *floor {
                        return Err(format!("{revision} panics with {floor} and is to have {}", decision.desired));
                    }
                    *floor = decision.desired;
                }
                None => drop(self.floors.remove(&revision)),
            }
            let decision = decision.map(|decision| ScaleDecision {
                desired: decision.desired,
                excess_burst_capacity: decision.excess_burst_capacity,
                at: now,
            });
            self.observe(Observation::ScaleDecision { revision, decision });
        }
        Ok(())
    }

    /// Wakes what is due.
    pub(crate) fn tick(&mut self) {
        self.queue.tick(self.clocks.running());
    }

    /// The registry's answer to somebody who asked for a digest.
    pub(crate) fn hear_digest(&mut self, request: DigestRequest, asker: Key, result: Result<String, String>) {
        let at = self.steady.now();
        self.observe(Observation::Digest { request, asker, result, at });
    }

    /// Hands the gateway its table, and hears that it has it.
    pub(crate) fn publish(&mut self) {
        let update = match &mut self.routing {
            None => {
                let (routing, update) = Routing::new(&self.world);
                self.routing = Some(routing);
                self.pending.clear();
                Some(update)
            }
            Some(routing) => {
                let changes = std::mem::take(&mut self.pending);
                routing.update(&self.world, &changes)
            }
        };
        if let Some(update) = update {
            self.observe(Observation::Published(update.published));
        }
    }

    /// The gateway's table.
    pub(crate) fn table(&self) -> Option<&knoll_api::table::RoutingTable> {
        self.routing.as_ref().map(Routing::table)
    }

    /// What any key still wants, were it planned now: row and key.
    pub(crate) fn unrest(&self) -> Option<String> {
        let now = self.steady.now();
        for row in self.rows.all() {
            for key in self.world.keys(row.of) {
                let plan = (row.plan)(&self.world, &key, now);
                if !plan.wants.is_empty() {
                    return Some(format!("{} {key}: {:?}", row.name, plan.wants));
                }
            }
        }
        None
    }

    /// What happened to the World's idea of a change it heard of; for failure messages.
    pub(crate) fn describe(want: &Want) -> String {
        match want {
            Want::Create(object) => format!("create {:?} {}", object.kind(), object.key()),
            Want::Update(object) => format!("update {:?} {}", object.kind(), object.key()),
            Want::Status(object) => format!("status {:?} {}", object.kind(), object.key()),
            other => format!("{other:?}"),
        }
    }
}

/// Asks for half the instances.
fn halve(want: &mut Want) {
    if let Want::Scale { replicas, .. } = want {
        *replicas /= 2;
    }
}
