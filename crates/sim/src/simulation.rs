//! The run: harm, then rest.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use knoll_api::{Key, Kind, Object};
use knoll_plan::{Observation, Settings, Want};
use serde_json::json;

use crate::{
    cluster::{Cluster, Denied},
    manager::{ControllerManager, Fault},
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
    now: Timestamp,
    /// Requests at a time that revisions have, and when the gateway next says so.
    load: BTreeMap<Key, f64>,
    report: Timestamp,
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
        let manager = ControllerManager::start(&cluster, Settings::default(), fault);
        Simulation {
            cluster,
            number,
            seed,
            manager,
            fault,
            now,
            load: BTreeMap::new(),
            report: now,
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
            && let Err(problem) = safety::table(table)
        {
            self.fail(&problem);
        }
    }

    fn harm(&mut self) {
        self.step += 1;
        self.now += SignedDuration::from_millis(i64::try_from(self.seed.below(200)).unwrap_or_default());
        self.tick();
        if self.seed.once_in(50) {
            self.manager.world.age();
        }
        match self.seed.below(100) {
            0..30 => self.hear(3),
            30..55 => self.plan(),
            55..80 => self.carry_on(true),
            80..87 => {
                node::step(&mut self.cluster, &mut self.seed, true, self.now);
            }
            87..91 => self.change_load(),
            91..94 => {
                self.manager.publish();
                self.answer_digests(true);
            }
            94..97 => {
                (self.edit)(&mut self.cluster, &mut self.seed, self.now);
                self.note("the user acted".into());
            }
            97 => self.pass_time(SignedDuration::from_secs(60)),
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
                    self.manager = ControllerManager::start(&self.cluster, Settings::default(), self.fault);
                    self.note("the power failed, and everything started again".into());
                } else if self.seed.once_in(3) {
                    self.manager = ControllerManager::start(&self.cluster, Settings::default(), self.fault);
                    self.note("the process died and started again".into());
                }
            }
        }
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
            self.manager.plan(self.now);
        }
    }

    fn carry_on(&mut self, harm: bool) {
        let at = self.seed.below(self.manager.items.len());
        let denied = match self.seed.below(40) {
            0 if harm => Some(Denied::Conflict),
            1 if harm => Some(Denied::Failed),
            _ => None,
        };
        let Some((want, view, done)) = self.manager.carry_on(&mut self.cluster, at, denied, self.now) else { return };
        self.note(format!("{} {}", if done { "done:" } else { "denied:" }, ControllerManager::describe(&want)));
        if done && let Err(problem) = safety::after_write(&self.cluster, &want, &view) {
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
        self.manager.tick(self.now);
        if self.now >= self.report {
            self.report = self.now + SignedDuration::from_secs(1);
            self.manager.report(&self.load, self.now);
        }
        self.manager.scale(self.now);
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
            self.manager.observe(Observation::Digest { request, asker, result, at: self.now });
        }
    }

    /// Goes to when a key asked to be looked at again, `most` further at most.
    fn pass_time(&mut self, most: SignedDuration) {
        if let Some(next) = self.manager.next_timer() {
            let step = next.duration_since(self.now).min(most);
            self.now += step.max(SignedDuration::ZERO);
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
            } else if !node::step(&mut self.cluster, &mut self.seed, false, self.now)
                && self.manager.lagging(&self.cluster).is_empty()
            {
                match self.manager.next_timer() {
                    Some(_) => self.pass_time(SignedDuration::MAX),
                    None => break,
                }
                if self.manager.next_timer().is_some_and(|next| next > self.now + SignedDuration::from_hours(2)) {
                    break;
                }
            }
        }
        if let Some(unrest) = self.manager.unrest(self.now) {
            self.fail(&format!("not at rest: {unrest}"));
        }
    }
}
