//! A process of controllers: the real rows and the loop's real queue over a World that lags behind the truth, kind by
//! kind.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use knoll_api::{Key, Kind, Object, stats::RevisionStat};
use knoll_drive::{
    Scaler,
    queue::{Barrier, Ended, Id, Lane, Queue},
    shows,
};
use knoll_plan::{Changed, Observation, Rows, ScaleDecision, Settings, Want, World, table::Routing};

use crate::cluster::{Cluster, Denied};

/// A fault that a run is to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    Sound,
    /// A key that is woken while it is under way, or waits for the World to show its write, does not come again.
    LostWake,
}

/// The wants of a key, under way.
#[derive(Clone, Debug)]
pub(crate) struct WorkItem {
    pub(crate) id: Id,
    pub(crate) left: VecDeque<Want>,
    versions: BTreeMap<(Kind, Key), String>,
    barriers: Vec<Barrier>,
    /// How far the World was when this was planned.
    pub(crate) view: BTreeMap<Kind, u64>,
    recheck: Option<Duration>,
}

/// The process.
pub(crate) struct ControllerManager {
    pub(crate) world: World,
    rows: Rows,
    /// How much of each kind's history the World has heard, and the revision that is.
    heard: BTreeMap<Kind, usize>,
    revisions: BTreeMap<Kind, u64>,
    queue: Queue,
    pub(crate) items: Vec<WorkItem>,
    routing: Option<Routing>,
    pending: Vec<Changed>,
    scaler: Scaler,
    /// Images somebody waits for.
    pub(crate) asked: Vec<Want>,
    fault: Fault,
}

/// Time as the queue counts it.
fn elapsed(now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default()
}

/// A time of the queue.
fn at(elapsed: Duration) -> Timestamp {
    let since = jiff::SignedDuration::try_from(elapsed).unwrap_or(jiff::SignedDuration::MAX);
    Timestamp::UNIX_EPOCH.checked_add(since).unwrap_or(Timestamp::MAX)
}

impl ControllerManager {
    /// A process that just started: it lists everything.
    pub(crate) fn start(cluster: &Cluster, settings: Settings, fault: Fault) -> ControllerManager {
        let rows = knoll_plan::rows(&settings);
        let mut manager = ControllerManager {
            world: World::new(settings),
            rows,
            heard: BTreeMap::new(),
            revisions: BTreeMap::new(),
            queue: Queue::default(),
            items: Vec::new(),
            routing: None,
            pending: Vec::new(),
            scaler: Scaler::new(std::sync::Arc::default()),
            asked: Vec::new(),
            fault,
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
        self.revisions.insert(kind, cluster.revision());
        self.changed(changes, Lane::Normal);
        self.queue.reached(kind, cluster.revision());
    }

    /// Kinds of which there is something to hear.
    pub(crate) fn lagging(&self, cluster: &Cluster) -> Vec<Kind> {
        let behind = |kind: &Kind| self.heard.get(kind).copied().unwrap_or_default() < cluster.history(*kind).len();
        Kind::ALL.iter().copied().filter(behind).collect()
    }

    /// Hears of the next few changes of a kind.
    pub(crate) fn hear(&mut self, cluster: &Cluster, kind: Kind, most: usize) {
        let from = self.heard.get(&kind).copied().unwrap_or_default();
        for (revision, change) in cluster.history(kind).iter().skip(from).take(most) {
            let changes = self.world.apply(change.clone());
            *self.heard.entry(kind).or_default() += 1;
            self.revisions.insert(kind, *revision);
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
    pub(crate) fn plan(&mut self, now: Timestamp) {
        let Some((id, _)) = self.queue.take(Lane::Spread) else { return };
        let plan = (self.rows.all()[id.0].plan)(&self.world, &id.1, now);
        let item = WorkItem {
            id,
            left: plan.wants.into(),
            versions: BTreeMap::new(),
            barriers: Vec::new(),
            view: self.revisions.clone(),
            recheck: plan.recheck,
        };
        if item.left.is_empty() { self.end(item, Ok(()), now) } else { self.items.push(item) }
    }

    /// Carries out the next want of an item. What it was, and what came of it.
    pub(crate) fn carry_on(
        &mut self,
        cluster: &mut Cluster,
        at: usize,
        deny: Option<Denied>,
        now: Timestamp,
    ) -> Option<(Want, BTreeMap<Kind, u64>, bool)> {
        let item = self.items.get_mut(at)?;
        let want = item.left.pop_front()?;
        let view = item.view.clone();
        let result = match deny {
            Some(denied) => Err(denied),
            None => cluster.carry_out(&want, &mut item.versions, now),
        };
        if let Ok(Some((kind, revision))) = &result {
            item.barriers.push(match &want {
                Want::Delete { kind, key, uid, .. } | Want::Collect { kind, key, uid, .. } => {
                    Barrier::Going(*kind, key.clone(), uid.clone())
                }
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
            self.end(item, result.map(drop), now);
        }
        Some((want, view, done))
    }

    fn end(&mut self, item: WorkItem, result: Result<(), Denied>, now: Timestamp) {
        let WorkItem { id, barriers, recheck, .. } = item;
        let ended = match result {
            Ok(()) => Ended::Well { barriers, recheck },
            Err(Denied::Conflict) => Ended::Conflict { barriers },
            Err(Denied::Failed) => Ended::Badly { barriers },
        };
        let (world, revisions) = (&self.world, &self.revisions);
        let reached = |barrier: &Barrier| shows(world, |kind| revisions.get(&kind).copied(), barrier);
        self.queue.ended(&id, ended, elapsed(now), reached);
    }

    /// When the next key asks to be looked at again, or a revision is decided.
    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        self.queue.next_due().into_iter().chain(self.scaler.next_due()).min().map(at)
    }

    /// The gateway reports a second in which revisions had these requests at a time.
    pub(crate) fn report(&mut self, load: &BTreeMap<Key, f64>, now: Timestamp) {
        let elapsed = elapsed(now);
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
        self.scale(now);
    }

    /// Decides what is due.
    pub(crate) fn scale(&mut self, now: Timestamp) {
        self.scaler.tick(elapsed(now));
        for (revision, decision) in self.scaler.take_decisions() {
            let decision = decision.map(|decision| ScaleDecision {
                desired: decision.desired,
                excess_burst_capacity: decision.excess_burst_capacity,
                at: now,
            });
            self.observe(Observation::ScaleDecision { revision, decision });
        }
    }

    /// Wakes what is due.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        self.queue.tick(elapsed(now));
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
    pub(crate) fn unrest(&self, now: Timestamp) -> Option<String> {
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
