//! Every controller at once over one cluster, with a kubelet that marks pods ready.

use std::collections::BTreeSet;

use expect_test::Expect;
use knoll_api::{Key, Kind, Resource, Timestamp, conditions::READY};
use serde_json::json;

use super::{Cluster, NOW};
use crate::{CARRIED_KINDS, Observation, Rows, ScaleDecision, Settings, rows, status::Reporting, table, to_carry};

/// Steps in which a cluster must come to rest.
const STEPS: usize = 5_000;

const CONFIG: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config-domain, namespace: knative-serving}
data: {example.com: ""}
---
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: Node
metadata: {name: knoll, labels: {kubernetes.io/hostname: knoll}}
status:
  conditions: [{type: Ready, status: "True"}]
  allocatable: {cpu: "8", memory: 16Gi, pods: "110"}
  capacity: {cpu: "8", memory: 16Gi, pods: "110"}
"#;

/// What becomes of pods.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kubelet {
    /// They stay as they are.
    Idle,
    /// They become ready.
    Starts,
    /// Their container ends with code 5.
    Crashes,
}

impl Kubelet {
    fn status(self, container: &str) -> serde_json::Value {
        let ready = if self == Kubelet::Starts { "True" } else { "False" };
        let mut status = json!({
            "name": container, "ready": self == Kubelet::Starts, "restartCount": 0, "image": "i", "imageID": "i",
            "state": {"running": {}},
        });
        if self == Kubelet::Crashes {
            status["lastState"] = json!({"terminated": {"exitCode": 5, "message": "boom"}});
        }
        json!({
            "phase": "Running", "podIP": "10.244.0.7", "containerStatuses": [status],
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": ready, "lastTransitionTime": NOW.to_string()},
            ],
        })
    }
}

/// Every controller over one cluster.
pub(super) struct Platform {
    pub(super) cluster: Cluster,
    rows: Rows,
    queue: BTreeSet<(usize, Key)>,
    pub(super) routing: table::Routing,
    pub(super) now: Timestamp,
    /// What becomes of pods.
    pub(super) kubelet: Kubelet,
    seed: u64,
    /// Rechecks that were asked for.
    deadlines: BTreeSet<(Timestamp, usize, Key)>,
}

impl Platform {
    pub(super) fn new() -> Platform {
        Platform::with(Settings::default(), 0)
    }

    /// With these settings; `seed` decides in which order keys are planned, 0 for the usual one.
    pub(super) fn with(settings: Settings, seed: u64) -> Platform {
        let rows = rows(&settings);
        let cluster = Cluster::with(settings);
        let (routing, _) = table::Routing::new(&cluster.world);
        let mut platform = Platform {
            cluster,
            rows,
            queue: BTreeSet::new(),
            routing,
            now: NOW,
            kubelet: Kubelet::Starts,
            deadlines: BTreeSet::new(),
            seed,
        };
        platform.add(CONFIG);
        platform
    }

    pub(super) fn add(&mut self, fixture: &str) {
        self.cluster.add(fixture);
        self.settle();
    }

    /// Lets every controller act until none wants anything.
    pub(super) fn settle(&mut self) {
        for _ in 0..STEPS {
            self.take_changes();
            let Some((row, key)) = self.pick() else {
                if self.start_pods() || self.carry() {
                    continue;
                }
                return;
            };
            let plan = (self.rows.all()[row].plan)(&self.cluster.world, &key, self.now);
            if let Some(delay) = plan.recheck {
                self.deadlines.insert((self.now + jiff::SignedDuration::try_from(delay).unwrap(), row, key.clone()));
            }
            let before = self.cluster.changes.len();
            for want in &plan.wants {
                self.cluster.carry_out(want, self.now);
            }
            // A want without effect (a stale resourceVersion) is tried again with what is there now.
            if !plan.wants.is_empty() && self.cluster.changes.len() > before {
                self.queue.insert((row, key));
            }
        }
        panic!("no rest after {STEPS} steps; queue: {:?}", self.queue);
    }

    /// Takes a key out of the queue.
    fn pick(&mut self) -> Option<(usize, Key)> {
        if self.seed == 0 {
            return self.queue.pop_first();
        }
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(self.seed >> 33).expect("31 bits") % self.queue.len().max(1);
        let picked = self.queue.iter().nth(at).cloned()?;
        self.queue.take(&picked)
    }

    /// Wakes who is concerned, and publishes the table.
    fn take_changes(&mut self) {
        while !self.cluster.changes.is_empty() {
            let changes = std::mem::take(&mut self.cluster.changes);
            for change in &changes {
                let woken = self.rows.woken(&self.cluster.world, change);
                self.queue.extend(woken.keys);
                for row in woken.all {
                    let keys = self.cluster.world.keys(self.rows.all()[row].of);
                    self.queue.extend(keys.into_iter().map(|key| (row, key)));
                }
            }
            if let Some(update) = self.routing.update(&self.cluster.world, &changes) {
                assert_eq!(*update.table, table::build(&self.cluster.world), "the table by changes is the table");
                let published = self.cluster.world.observe(Observation::Published(update.published));
                self.cluster.changes.extend(published);
            }
        }
        assert_eq!(*self.routing.table(), table::build(&self.cluster.world), "the table by changes is the table");
    }

    /// A kubelet: bound pods become what [`Kubelet`] says. Returns whether it had anything to do.
    fn start_pods(&mut self) -> bool {
        let mut busy = false;
        for key in self.cluster.world.keys(Kind::Pod) {
            let pod = self.cluster.world.pods.get(&key).expect("just listed").clone();
            let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            if self.kubelet == Kubelet::Idle || !bound || pod.is_deleting() {
                continue;
            }
            let name = pod.spec.as_ref().expect("bound").containers[0].name.clone();
            let status = self.kubelet.status(&name);
            let before = self.cluster.changes.len();
            self.cluster.edit(Kind::Pod, &key, |value| value["status"] = status);
            busy |= self.cluster.changes.len() > before;
        }
        busy
    }

    /// A data plane of events: it carries out what it is to. Returns whether it had anything to do.
    fn carry(&mut self) -> bool {
        let world = &self.cluster.world;
        let listed =
            CARRIED_KINDS.into_iter().flat_map(|kind| world.keys(kind).into_iter().map(move |key| (kind, key)));
        let known = world.observed.carried.keys().cloned();
        let objects: BTreeSet<(Kind, Key)> = listed.chain(known).collect();
        let due = objects.into_iter().map(|(kind, key)| {
            let due = to_carry(world, kind, &key);
            ((kind, key), due)
        });
        let due = due.collect();
        let changed = self.cluster.world.observe(Observation::Carries(due));
        self.cluster.changes.extend(changed.iter().cloned());
        !changed.is_empty()
    }

    /// Lets time pass, acting at every deadline on the way.
    pub(super) fn pass(&mut self, seconds: i64) {
        let end = self.now + jiff::SignedDuration::from_secs(seconds);
        while let Some((at, row, key)) = self.deadlines.first().cloned().filter(|(at, ..)| *at <= end) {
            self.deadlines.pop_first();
            self.now = at.max(self.now);
            self.queue.insert((row, key));
            self.settle();
        }
        self.now = end;
    }

    pub(super) fn edit(&mut self, kind: Kind, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
        self.edit_in(kind, &Key::new("default", name), change);
    }

    pub(super) fn edit_in(&mut self, kind: Kind, key: &Key, change: impl FnOnce(&mut serde_json::Value)) {
        self.cluster.edit(kind, key, change);
        self.settle();
    }

    pub(super) fn decide(&mut self, revision: &str, desired: i32) {
        let decision = Some(ScaleDecision { desired, excess_burst_capacity: -1, at: self.now });
        let revision = Key::new("default", revision);
        let changed = self.cluster.world.observe(Observation::ScaleDecision { revision, decision });
        self.cluster.changes.extend(changed);
        self.settle();
    }

    pub(super) fn service(&self, name: &str) -> std::sync::Arc<knoll_api::serving::Service> {
        self.cluster.world.services.get(&Key::new("default", name)).expect("the service").clone()
    }

    pub(super) fn ready_of(&self, name: &str) -> String {
        let service = self.service(name);
        let ready = service.condition(READY).expect("a ready condition");
        format!("{} {} {}", ready.status, ready.reason, ready.message).trim_end().to_owned()
    }

    pub(super) fn replicas(&self, deployment: &str) -> Option<i32> {
        self.cluster.world.deployments.get(&Key::new("default", deployment))?.spec.as_ref()?.replicas
    }

    pub(super) fn check_tree(&self, expected: Expect) {
        let mut text = String::new();
        self.print_tree(Kind::Service, &Key::new("default", "hello"), 0, &mut text);
        expected.assert_eq(&text);
    }

    fn print_tree(&self, kind: Kind, key: &Key, depth: usize, text: &mut String) {
        let meta = self.cluster.world.meta(kind, key).expect("in the tree");
        let generation = meta.generation.unwrap_or_default();
        *text += &format!("{}{:?} {} gen={generation}\n", "  ".repeat(depth), kind, shorten(&key.name));
        for (kind, key) in self.cluster.world.dependents(meta.uid.as_deref().expect("a uid")) {
            self.print_tree(kind, &key, depth + 1, text);
        }
    }
}

/// Pods end in random letters.
fn shorten(name: &str) -> &str {
    if name.contains("-deployment-") {
        &name[..name.find("-deployment-").unwrap() + "-deployment-".len()]
    } else {
        name
    }
}
