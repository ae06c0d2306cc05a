//! A process of controllers: the real rows over a World that lags behind the truth, kind by kind.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use knoll_api::{Key, Kind, Object};
use knoll_plan::{Changed, Observation, Rows, Settings, Want, World, table::Routing};

use crate::{
    cluster::{Cluster, Denied},
    seed::Seed,
};

pub(crate) type Id = (usize, Key);

/// The wants of a key, under way.
#[derive(Clone, Debug)]
pub(crate) struct Errand {
    pub(crate) id: Id,
    pub(crate) left: VecDeque<Want>,
    versions: BTreeMap<(Kind, Key), String>,
    holds: BTreeMap<Kind, u64>,
    /// How far the World was when this was planned.
    pub(crate) view: BTreeMap<Kind, u64>,
    recheck: Option<Duration>,
}

/// The process.
pub(crate) struct Manager {
    pub(crate) world: World,
    rows: Rows,
    /// How much of each kind's history the World has heard, and the revision that is.
    heard: BTreeMap<Kind, usize>,
    revisions: BTreeMap<Kind, u64>,
    ready: BTreeSet<Id>,
    pub(crate) errands: Vec<Errand>,
    /// Woken while under way or held.
    again: BTreeSet<Id>,
    held: BTreeMap<Id, BTreeMap<Kind, u64>>,
    timers: BTreeMap<Id, Timestamp>,
    routing: Option<Routing>,
    pending: Vec<Changed>,
    /// Images somebody waits for.
    pub(crate) asked: Vec<Want>,
}

impl Manager {
    /// A process that just started: it lists everything.
    pub(crate) fn start(cluster: &Cluster, settings: Settings) -> Manager {
        let rows = knoll_plan::rows(&settings);
        let mut manager = Manager {
            world: World::new(settings),
            rows,
            heard: BTreeMap::new(),
            revisions: BTreeMap::new(),
            ready: BTreeSet::new(),
            errands: Vec::new(),
            again: BTreeSet::new(),
            held: BTreeMap::new(),
            timers: BTreeMap::new(),
            routing: None,
            pending: Vec::new(),
            asked: Vec::new(),
        };
        for kind in Kind::ALL {
            manager.list(cluster, *kind);
        }
        manager.pending.clear();
        manager.ready.clear();
        for (index, row) in manager.rows.all().iter().enumerate() {
            manager.ready.extend(manager.world.keys(row.of).into_iter().map(|key| (index, key)));
        }
        manager
    }

    /// Lists a kind again: hears of the end, not of what was between.
    pub(crate) fn list(&mut self, cluster: &Cluster, kind: Kind) {
        let objects: Vec<Object> = cluster.all(kind).cloned().collect();
        let changes = self.world.replace(kind, objects);
        self.heard.insert(kind, cluster.history(kind).len());
        self.revisions.insert(kind, cluster.revision());
        self.changed(changes);
        self.release();
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
            self.changed(changes);
        }
        self.release();
    }

    /// Hears of something that is no object.
    pub(crate) fn observe(&mut self, observation: Observation) {
        let changes = self.world.observe(observation);
        self.changed(changes);
    }

    fn changed(&mut self, changes: Vec<Changed>) {
        for change in &changes {
            let woken = self.rows.woken(&self.world, change);
            let all = woken
                .all
                .into_iter()
                .flat_map(|row| self.world.keys(self.rows.all()[row].of).into_iter().map(move |key| (row, key)));
            let keys: Vec<Id> = woken.keys.into_iter().chain(all).collect();
            keys.into_iter().for_each(|id| self.wake(id));
        }
        self.pending.extend(changes);
    }

    fn wake(&mut self, id: Id) {
        let busy = self.held.contains_key(&id) || self.errands.iter().any(|errand| errand.id == id);
        if busy {
            self.again.insert(id)
        } else {
            self.ready.insert(id)
        };
    }

    fn release(&mut self) {
        let reached = |holds: &BTreeMap<Kind, u64>| {
            holds.iter().all(|(kind, at)| self.revisions.get(kind).is_some_and(|revision| revision >= at))
        };
        let free: Vec<Id> = self.held.iter().filter(|(_, holds)| reached(holds)).map(|(id, _)| id.clone()).collect();
        for id in free {
            self.held.remove(&id);
            if self.again.remove(&id) {
                self.ready.insert(id);
            }
        }
    }

    /// Whether a key could be planned now.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Plans one of the ready keys.
    pub(crate) fn plan(&mut self, seed: &mut Seed, now: Timestamp) {
        let at = seed.below(self.ready.len());
        let Some(id) = self.ready.iter().nth(at).cloned() else { return };
        self.ready.remove(&id);
        self.timers.remove(&id);
        let plan = (self.rows.all()[id.0].plan)(&self.world, &id.1, now);
        let errand = Errand {
            id,
            left: plan.wants.into(),
            versions: BTreeMap::new(),
            holds: BTreeMap::new(),
            view: self.revisions.clone(),
            recheck: plan.recheck,
        };
        if errand.left.is_empty() { self.end(errand, true, now) } else { self.errands.push(errand) }
    }

    /// Carries out the next want of an errand. What it was, and what came of it.
    pub(crate) fn carry_on(
        &mut self,
        cluster: &mut Cluster,
        at: usize,
        deny: Option<Denied>,
        now: Timestamp,
    ) -> Option<(Want, BTreeMap<Kind, u64>, bool)> {
        let errand = self.errands.get_mut(at)?;
        let want = errand.left.pop_front()?;
        let view = errand.view.clone();
        let result = match deny {
            Some(denied) => Err(denied),
            None => cluster.carry_out(&want, &mut errand.versions, now),
        };
        if let Ok(Some((kind, revision))) = &result {
            errand.holds.insert(*kind, *revision);
        }
        if matches!(want, Want::ResolveDigest { .. }) && result.is_ok() {
            self.asked.push(want.clone());
        }
        let done = result.is_ok();
        if errand.left.is_empty() || !done {
            let errand = self.errands.swap_remove(at);
            self.end(errand, done, now);
        }
        Some((want, view, done))
    }

    fn end(&mut self, errand: Errand, well: bool, now: Timestamp) {
        if let Some(recheck) = errand.recheck.filter(|_| well) {
            let due = jiff::SignedDuration::try_from(recheck).ok().and_then(|delay| now.checked_add(delay).ok());
            self.timers.extend(due.map(|due| (errand.id.clone(), due)));
        }
        if !well {
            self.again.insert(errand.id.clone());
        }
        self.held.insert(errand.id, errand.holds);
        self.release();
    }

    /// When the next key asks to be looked at again.
    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        self.timers.values().min().copied()
    }

    /// Wakes what is due.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        let due: Vec<Id> = self.timers.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.timers.remove(&id);
            self.wake(id);
        }
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
    pub(crate) fn table(&self) -> Option<&knoll_api::table::Table> {
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
