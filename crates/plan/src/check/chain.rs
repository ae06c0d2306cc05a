//! The whole chain: every controller at once over one cluster, with a kubelet that marks pods ready.

use std::collections::BTreeSet;

use expect_test::{Expect, expect};
use knoll_api::{Key, Kind, Resource, Timestamp, conditions::READY};
use serde_json::json;

use super::{Cluster, NOW};
use crate::{Observation, Rows, ScaleDecision, Settings, rows, status::Reporting, table};

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

const HELLO: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
  annotations: {serving.knative.dev/creator: me, serving.knative.dev/lastModifier: me}
spec:
  template:
    spec:
      containerConcurrency: 0
      timeoutSeconds: 300
      enableServiceLinks: false
      containers:
      - name: user-container
        image: hello:1
        readinessProbe: {tcpSocket: {port: 0}, successThreshold: 1}
        resources: {}
  traffic: [{percent: 100, latestRevision: true}]
"#;

/// Every controller over one cluster.
struct Platform {
    cluster: Cluster,
    rows: Rows,
    queue: BTreeSet<(usize, Key)>,
    routing: table::Routing,
    now: Timestamp,
    /// Whether the kubelet starts pods.
    kubelet: bool,
    /// Rechecks that were asked for.
    deadlines: BTreeSet<(Timestamp, usize, Key)>,
}

impl Platform {
    fn new() -> Platform {
        let cluster = Cluster::new();
        let (routing, _) = table::Routing::new(&cluster.world);
        let rows = rows(&Settings::default());
        let mut platform = Platform {
            cluster,
            rows,
            queue: BTreeSet::new(),
            routing,
            now: NOW,
            kubelet: true,
            deadlines: BTreeSet::new(),
        };
        platform.add(CONFIG);
        platform
    }

    fn add(&mut self, fixture: &str) {
        self.cluster.add(fixture);
        self.settle();
    }

    /// Lets every controller act until none wants anything.
    fn settle(&mut self) {
        for _ in 0..STEPS {
            self.take_changes();
            let Some((row, key)) = self.queue.pop_first() else {
                if self.start_pods() {
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

    /// A kubelet: bound pods become ready, deleted ones end. Returns whether it had anything to do.
    fn start_pods(&mut self) -> bool {
        let mut busy = false;
        for key in self.cluster.world.keys(Kind::Pod) {
            let pod = self.cluster.world.pods.get(&key).expect("just listed").clone();
            let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            let ready = crate::instances::takes_requests(&pod);
            if self.kubelet && bound && !ready && !pod.is_deleting() {
                let name = pod.spec.as_ref().unwrap().containers[0].name.clone();
                self.cluster.edit(Kind::Pod, &key, |value| {
                    value["status"] = json!({
                        "phase": "Running", "podIP": "10.244.0.7",
                        "conditions": [
                            {"type": "PodScheduled", "status": "True"},
                            {"type": "Ready", "status": "True", "lastTransitionTime": NOW.to_string()},
                        ],
                        "containerStatuses": [{
                            "name": name, "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
                            "state": {"running": {}},
                        }],
                    });
                });
                busy = true;
            }
        }
        busy
    }

    /// Lets time pass, acting at every deadline on the way.
    fn pass(&mut self, seconds: i64) {
        let end = self.now + jiff::SignedDuration::from_secs(seconds);
        while let Some((at, row, key)) = self.deadlines.first().cloned().filter(|(at, ..)| *at <= end) {
            self.deadlines.pop_first();
            self.now = at.max(self.now);
            self.queue.insert((row, key));
            self.settle();
        }
        self.now = end;
    }

    fn decide(&mut self, revision: &str, desired: i32) {
        let decision = Some(ScaleDecision { desired, excess_burst_capacity: -1, at: self.now });
        let revision = Key::new("default", revision);
        let changed = self.cluster.world.observe(Observation::Decision { revision, decision });
        self.cluster.changes.extend(changed);
        self.settle();
    }

    fn service(&self) -> std::sync::Arc<knoll_api::serving::Service> {
        self.cluster.world.services.get(&Key::new("default", "hello")).expect("the service").clone()
    }

    fn ready_of(&self) -> String {
        let service = self.service();
        let ready = service.condition(READY).expect("a ready condition");
        format!("{} {} {}", ready.status, ready.reason, ready.message).trim_end().to_owned()
    }

    fn replicas(&self, deployment: &str) -> Option<i32> {
        self.cluster.world.deployments.get(&Key::new("default", deployment))?.spec.as_ref()?.replicas
    }

    fn check_tree(&self, expected: Expect) {
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
    if name.contains("-deployment-") { &name[..name.find("-deployment-").unwrap() + "-deployment-".len()] } else { name }
}

#[test]
fn a_service_becomes_ready_with_its_whole_tree() {
    let mut platform = Platform::new();
    platform.add(HELLO);
    assert_eq!(platform.ready_of(), "True");
    let service = platform.service();
    assert_eq!(service.status.common.observed_generation, Some(1));
    assert_eq!(service.status.url.as_deref(), Some("http://hello.default.example.com"));
    assert_eq!(service.status.latest_ready_revision_name.as_deref(), Some("hello-00001"));
    platform.check_tree(expect![[""]]);
}

#[test]
fn a_pod_that_never_starts_leaves_the_service_unknown() {
    let mut platform = Platform::new();
    platform.kubelet = false;
    platform.add(HELLO);
    expect![[""]].assert_eq(&platform.ready_of());
}
