//! The run: harm, then rest.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use knoll_api::{Key, Kind, Object};
use knoll_plan::{Settings, Want};
use serde_json::json;

use crate::{
    clocks::Clocks,
    cluster::{Cluster, Denied},
    manager::{Carried, ControllerManager, Fault},
    node, safety,
    seed::Seed,
};

/// What a user may do, once in a while.
pub type Edit = fn(&mut Cluster, &mut Seed, Timestamp);

/// Most rounds until everything is at rest once the harm has stopped.
const ROUNDS: usize = 20_000;

/// A cluster, the controllers over it, a node, a user, and chance.
pub struct Simulation {
    /// The truth.
    pub cluster: Cluster,
    number: u64,
    seed: Seed,
    manager: ControllerManager,
    fault: Fault,
    clocks: Clocks,
    /// When the clock on the wall is set: by chance of its own, so that all else happens as without that until then.
    jumps: Seed,
    /// Requests at a time that revisions have, and when the gateway next says so.
    load: BTreeMap<Key, f64>,
    report: Duration,
    step: usize,
    edit: Edit,
    /// The last few things that happened.
    trail: Vec<String>,
}

impl Simulation {
    /// A cluster with a node and what `begin` puts in it; `edit` is what users do to it.
    pub fn new(number: u64, begin: Edit, edit: Edit) -> Simulation {
        Simulation::with(Fault::Sound, number, begin, edit)
    }

    /// The same, with a fault that the run is to find.
    pub fn with(fault: Fault, number: u64, begin: Edit, edit: Edit) -> Simulation {
        let mut seed = Seed::new(number);
        let now = Timestamp::constant(1_767_268_800, 0);
        let clocks = Clocks::new(now);
        let mut cluster = Cluster::default();
        for namespace in ["a", knoll_api::labels::SYSTEM_NAMESPACE] {
            cluster.put(
                Kind::Namespace,
                json!({"metadata": {"name": namespace}, "spec": {"finalizers": ["kubernetes"]}}),
                now,
            );
        }
        let allocatable = json!({"cpu": "64", "memory": "64Gi", "pods": "1000"});
        cluster.put(Kind::Node, json!({"metadata": {"name": node::NAME}, "status": {"allocatable": allocatable}}), now);
        begin(&mut cluster, &mut seed, now);
        let manager = ControllerManager::start(&cluster, Settings::default(), fault, &clocks);
        Simulation {
            cluster,
            number,
            seed,
            manager,
            fault,
            clocks,
            jumps: Seed::new(!number),
            load: BTreeMap::new(),
            report: Duration::ZERO,
            step: 0,
            edit,
            trail: Vec::new(),
        }
    }

    /// Lets `steps` things happen, harmful ones among them, then lets everything come to rest.
    ///
    /// # Panics
    /// With the seed and the step, when something unsafe happened or nothing comes to rest.
    pub fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.harm();
            self.check();
        }
        self.settle();
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        let trail = self.trail.iter().rev().take(30).rev().cloned().collect::<Vec<_>>().join("\n  ");
        panic!("seed {}, step {}: {what}\n  {trail}", self.number, self.step);
    }

    fn note(&mut self, what: String) {
        if self.trail.len() >= 200 {
            self.trail.drain(..100);
        }
        self.trail.push(what);
    }

    fn check(&self) {
        if let Some(table) = self.manager.table()
            && let Err(problem) = safety::table(table).and_then(|()| safety::limits(&self.cluster, table))
        {
            self.fail(&problem);
        }
    }

    /// Somebody sets the clock on the wall, once in a while.
    fn set_clock(&mut self) {
        if self.jumps.once_in(300) {
            let by = SignedDuration::from_hours(if self.jumps.once_in(2) { 24 } else { -24 });
            self.clocks.set_by(by);
            self.note(format!("the clock was set by {by:#}"));
        }
    }

    fn harm(&mut self) {
        self.step += 1;
        self.clocks.pass(Duration::from_millis(u64::try_from(self.seed.below(200)).unwrap_or_default()));
        self.set_clock();
        self.tick();
        if self.seed.once_in(50) {
            self.manager.world.age();
        }
        match self.seed.below(100) {
            0..30 => self.hear(3),
            30..55 => self.plan(),
            55..80 => self.carry_on(true),
            80..87 => {
                node::step(&mut self.cluster, &mut self.seed, true, self.clocks.wall());
            }
            87..91 => self.change_load(),
            91..94 => {
                self.manager.publish();
                self.answer_digests(true);
            }
            94..97 => {
                (self.edit)(&mut self.cluster, &mut self.seed, self.clocks.wall());
                self.note("the user acted".into());
            }
            97 => self.pass_time(Duration::from_secs(60)),
            98 => {
                if let Some(kind) = self.seed.pick(&self.manager.lagging(&self.cluster)).copied() {
                    self.manager.list(&self.cluster, kind);
                    self.note(format!("listed {kind:?} again"));
                }
            }
            _ => {
                if self.seed.once_in(6) {
                    let cut = self.seed.number();
                    if let Err(problem) = self.cluster.power_cut(cut) {
                        self.fail(&problem);
                    }
                    self.start_again();
                    self.note("the power failed, and everything started again".into());
                } else if self.seed.once_in(3) {
                    self.start_again();
                    self.note("the process died and started again".into());
                }
            }
        }
    }

    fn start_again(&mut self) {
        self.manager = ControllerManager::start(&self.cluster, Settings::default(), self.fault, &self.clocks);
    }

    fn hear(&mut self, most: usize) {
        let lagging = self.manager.lagging(&self.cluster);
        if let Some(kind) = self.seed.pick(&lagging).copied() {
            let most = 1 + self.seed.below(most);
            self.manager.hear(&self.cluster, kind, most);
        }
    }

    fn plan(&mut self) {
        if self.manager.has_ready() {
            self.manager.plan();
        }
    }

    fn carry_on(&mut self, harm: bool) {
        let at = self.seed.below(self.manager.items.len());
        let denied = match self.seed.below(40) {
            0 if harm => Some(Denied::Conflict),
            1 if harm => Some(Denied::Failed),
            _ => None,
        };
        let Some(carried) = self.manager.carry_on(&mut self.cluster, at, denied) else { return };
        let Carried { want, view, floors, done } = carried;
        self.note(format!("{} {}", if done { "done:" } else { "denied:" }, ControllerManager::describe(&want)));
        let safe = || {
            safety::after_write(&self.cluster, &want, &view)?;
            safety::floor(&want, &floors)
        };
        if done && let Err(problem) = safe() {
            self.fail(&problem);
        }
    }

    /// Users ask more of a revision, or less, or nothing.
    fn change_load(&mut self) {
        let revisions: Vec<Key> = self.cluster.all(Kind::PodAutoscaler).map(Object::key).collect();
        let Some(revision) = self.seed.pick(&revisions).cloned() else { return };
        let load = self.seed.pick(&[0.0, 0.0, 1.0, 30.0, 150.0, 400.0]).copied().unwrap_or_default();
        self.note(format!("{revision} has {load} requests at a time"));
        self.load.insert(revision, load);
        self.load.retain(|_, load| *load > 0.0);
    }

    /// Wakes what is due; each second the gateway reports.
    fn tick(&mut self) {
        self.manager.tick();
        let mut safe = Ok(());
        if self.clocks.running() >= self.report {
            self.report = self.clocks.running() + Duration::from_secs(1);
            safe = self.manager.report(&self.load);
        }
        if let Err(problem) = safe.and_then(|()| self.manager.scale()) {
            self.fail(&problem);
        }
    }

    /// The registry answers, or does not.
    fn answer_digests(&mut self, harm: bool) {
        for want in std::mem::take(&mut self.manager.asked) {
            let Want::ResolveDigest { request, asker, .. } = want else { continue };
            let result = if harm && self.seed.once_in(3) {
                Err("no route to host".to_owned())
            } else {
                Ok(format!("{}@sha256:{}", request.image, "0".repeat(64)))
            };
            self.manager.hear_digest(request, asker, result);
        }
    }

    /// Goes to when a key asked to be looked at again, `most` further at most.
    fn pass_time(&mut self, most: Duration) {
        if let Some(next) = self.manager.next_timer() {
            self.clocks.pass(next.saturating_sub(self.clocks.running()).min(most));
        }
        self.tick();
    }

    /// Stops the harm; everything must come to rest, and stay there.
    fn settle(&mut self) {
        self.load.clear();
        for _ in 0..ROUNDS {
            self.step += 1;
            for kind in self.manager.lagging(&self.cluster) {
                self.manager.hear(&self.cluster, kind, usize::MAX);
            }
            self.manager.publish();
            self.answer_digests(false);
            self.check();
            if !self.manager.items.is_empty() {
                self.carry_on(false);
            } else if self.manager.has_ready() {
                self.plan();
            } else if !node::step(&mut self.cluster, &mut self.seed, false, self.clocks.wall())
                && self.manager.lagging(&self.cluster).is_empty()
            {
                match self.manager.next_timer() {
                    Some(_) => self.pass_time(Duration::MAX),
                    None => break,
                }
                if self
                    .manager
                    .next_timer()
                    .is_some_and(|next| next > self.clocks.running() + Duration::from_secs(7200))
                {
                    break;
                }
            }
        }
        if let Some(unrest) = self.manager.unrest() {
            self.fail(&format!("not at rest: {unrest}"));
        }
    }
}
