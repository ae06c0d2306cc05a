use knoll_api::k8s_openapi::api::core::v1::Pod as CorePod;
use serde_json::{Value, json};

use super::*;
use crate::{
    Change, Observation, Refusal,
    check::{Cluster, NOW},
};

/// A cluster with the Job `j`, whose pods do what a test says.
struct Scene {
    cluster: Cluster,
    now: Timestamp,
    /// When a plan asked to be made again.
    recheck: Option<Duration>,
    /// Carry out no more than so many wants of a plan, then as many more each time: a crash in between.
    most: usize,
    /// Every step that was taken, a line each.
    steps: Vec<String>,
}

impl Scene {
    /// With this spec, and what the API server fills in.
    fn new(spec: Value) -> Scene {
        Scene::with(Cluster::new(), spec)
    }

    fn with(cluster: Cluster, mut spec: Value) -> Scene {
        let mut scene = Scene { cluster, now: NOW, recheck: None, most: usize::MAX, steps: Vec::new() };
        let fill = spec.as_object_mut().expect("an object");
        fill.entry("parallelism").or_insert(1.into());
        fill.entry("backoffLimit").or_insert(6.into());
        fill.entry("selector").or_insert(json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "uid-Job-j"}}));
        fill.entry("template").or_insert(json!({
            "metadata": {"labels": {"batch.kubernetes.io/controller-uid": "uid-Job-j"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
        }));
        scene.cluster.put(Kind::Job, json!({"metadata": {"name": "j"}, "spec": spec}));
        scene.settle();
        scene
    }

    fn key() -> Key {
        Key::new("default", "j")
    }

    /// Plans until nothing is wanted.
    fn settle(&mut self) {
        for _ in 0..200 {
            let mut wants = 0;
            let plan = (ROW.plan)(&self.cluster.world, &Scene::key(), self.now);
            assert_eq!(plan, (ROW.plan)(&self.cluster.world, &Scene::key(), self.now), "the same plan twice");
            self.recheck = plan.recheck;
            wants += self.carry_out(&plan);
            for pod in self.cluster.world.keys(Kind::Pod) {
                wants += self.carry_out(&(RELEASE.plan)(&self.cluster.world, &pod, self.now));
            }
            if wants == 0 {
                return;
            }
        }
        panic!("no rest:\n{}", self.steps.join("\n"));
    }

    /// How much was wanted, but for Events.
    fn carry_out(&mut self, plan: &Plan) -> usize {
        let acts = |want: &&Want| !matches!(want, Want::RecordEvent(_));
        for want in plan.wants.iter().take(self.most) {
            self.steps.push(format!("{want:?}").chars().take(60).collect());
            self.cluster.carry_out(want, self.now);
        }
        self.most = self.most.saturating_add(1);
        plan.wants.iter().filter(acts).count()
    }

    fn pods(&self) -> Vec<Arc<CorePod>> {
        self.cluster.world.pods.iter().collect()
    }

    /// Keys of pods that have not ended.
    fn live(&self) -> Vec<Key> {
        self.pods().iter().filter(|pod| !pods::is_finished(pod)).map(|pod| pod.key()).collect()
    }

    /// Has a pod end with this exit code.
    fn end(&mut self, pod: &Key, code: i32) {
        let finished = self.now.to_string();
        self.cluster.edit(Kind::Pod, pod, |pod| {
            let state = json!({"terminated": {"exitCode": code, "finishedAt": finished}});
            pod["status"] = json!({
                "phase": if code == 0 { "Succeeded" } else { "Failed" },
                "containerStatuses": [{
                    "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state,
                }],
            });
        });
    }

    /// Has every pod that runs end so, and settles.
    fn end_all(&mut self, code: i32) {
        self.live().iter().for_each(|pod| self.end(pod, code));
        self.settle();
    }

    fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.settle();
    }

    fn job(&self) -> Value {
        self.cluster.world.object(Kind::Job, &Scene::key()).expect("the Job").to_json()
    }

    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        self.cluster.edit(Kind::Job, &Scene::key(), change);
        self.settle();
    }

    fn count(&self, field: &str) -> i64 {
        self.job()["status"][field].as_i64().unwrap_or_default()
    }

    /// Active, succeeded, failed.
    fn counts(&self) -> (i64, i64, i64) {
        (self.count("active"), self.count("succeeded"), self.count("failed"))
    }

    /// Conditions that hold: type, reason and message.
    fn conditions(&self) -> Vec<String> {
        let job = self.job();
        let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let holding = conditions.iter().filter(|condition| condition["status"] == "True");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        holding.map(|c| format!("{} {}: {}", text(&c["type"]), text(&c["reason"]), text(&c["message"]))).collect()
    }

    fn told(&self, reason: &str) -> usize {
        self.cluster.notes.iter().filter(|note| note.starts_with(&format!("{reason}: "))).count()
    }

    /// Has the node forget pods that are going.
    fn forget_going(&mut self) {
        for pod in self.pods().iter().filter(|pod| pod.is_deleting()) {
            self.end(&pod.key(), 143);
        }
        self.settle();
    }
}

fn indexed(mut spec: Value) -> Value {
    spec["completionMode"] = "Indexed".into();
    spec
}

/// The indexes that pods work on which have not ended.
fn working(scene: &Scene) -> Vec<i32> {
    let live = scene.pods().into_iter().filter(|pod| pods::is_active(pod));
    let mut indexes: Vec<i32> = live.filter_map(|pod| attempt::index(&pod)).collect();
    indexes.sort_unstable();
    indexes
}

#[test]
fn a_job_runs_as_many_at_a_time_as_it_may_until_enough_have_succeeded() {
    let mut scene = Scene::new(json!({"completions": 3, "parallelism": 2}));
    assert_eq!(scene.counts(), (2, 0, 0));
    assert_eq!(scene.job()["status"]["startTime"], NOW.to_string());
    let pod = scene.pods()[0].clone();
    assert!(attempt::is_uncounted(&pod), "nobody removes it before it was counted");
    let first = scene.live()[0].clone();
    scene.end(&first, 0);
    scene.settle();
    assert_eq!(scene.counts(), (2, 1, 0));
    scene.end_all(0);
    assert_eq!(scene.counts(), (0, 3, 0));
    let reached = "CompletionsReached: Reached expected number of succeeded pods";
    assert_eq!(scene.conditions(), [format!("SuccessCriteriaMet {reached}"), format!("Complete {reached}")]);
    assert_eq!(scene.job()["status"]["completionTime"], NOW.to_string());
    assert_eq!(scene.job()["status"]["uncountedTerminatedPods"], json!({}));
    assert_eq!((scene.told("SuccessfulCreate"), scene.told("Completed")), (3, 1));
    assert!(scene.pods().iter().all(|pod| !attempt::is_uncounted(pod)));
}

#[test]
fn without_a_number_the_first_success_is_enough_when_the_others_have_ended() {
    let mut scene = Scene::new(json!({"parallelism": 3}));
    let pods = scene.live();
    scene.end(&pods[0], 0);
    scene.settle();
    assert_eq!(scene.counts(), (2, 1, 0));
    assert_eq!(scene.conditions(), [""; 0]);
    scene.end(&pods[1], 1);
    scene.end(&pods[2], 0);
    scene.settle();
    assert_eq!(scene.counts(), (0, 2, 1));
    assert_eq!(scene.conditions().len(), 2);
}

#[test]
fn a_job_of_nothing_is_complete_at_once() {
    let scene = Scene::new(json!({"completions": 0}));
    assert_eq!(scene.conditions().len(), 2);
    assert!(scene.pods().is_empty());
}

#[test]
fn each_pod_is_counted_once_whatever_is_lost_in_between() {
    for most in 0..40 {
        let mut scene = Scene::new(json!({"completions": 4, "parallelism": 2, "backoffLimit": 3}));
        // Plans are cut off early at first, and at another place in each life.
        for code in [1, 0, 0, 1, 0, 0] {
            scene.most = most % 7;
            let Some(pod) = scene.live().first().cloned() else { break };
            scene.end(&pod, code);
            scene.later(600);
        }
        assert_eq!((scene.count("succeeded"), scene.count("failed")), (4, 2), "cut after {most}");
        assert_eq!(scene.conditions().len(), 2, "{:?}", scene.conditions());
        assert_eq!(scene.cluster.world.pods.len(), 6);
    }
}

#[test]
fn a_plan_from_a_late_world_names_the_same_pods() {
    let world = Scene::new(json!({"suspend": true, "completions": 9, "parallelism": 4})).cluster;
    let created = |cluster: &Cluster| -> Vec<Key> {
        let plan = (ROW.plan)(&cluster.world, &Scene::key(), NOW);
        let created = plan.wants.iter().filter_map(|want| match want {
            Want::Create(object) => Some(object.key()),
            _ => None,
        });
        created.collect()
    };
    let mut resumed = world.clone();
    resumed.edit(Kind::Job, &Scene::key(), |job| job["spec"]["suspend"] = false.into());
    let all = created(&resumed);
    assert_eq!(all.len(), 4);
    let mut late = resumed.clone();
    let plan = (ROW.plan)(&resumed.world, &Scene::key(), NOW);
    let creates = plan.wants.iter().filter(|want| matches!(want, Want::Create(_)));
    creates.skip(1).take(2).for_each(|want| late.carry_out(want, NOW));
    assert!(created(&late).iter().all(|key| all.contains(key)), "{:?} beyond {all:?}", created(&late));
}

#[test]
fn failures_are_made_up_for_more_slowly_each_time_until_the_limit() {
    let mut scene = Scene::new(json!({"completions": 1, "backoffLimit": 2}));
    for pause in [10, 20] {
        scene.end_all(1);
        assert_eq!(scene.live().len(), 0);
        assert_eq!(scene.recheck, Some(Duration::from_secs(pause)));
        scene.later(pause - 1);
        assert_eq!(scene.live().len(), 0);
        scene.later(1);
        assert_eq!(scene.live().len(), 1);
    }
    scene.end_all(1);
    assert_eq!(scene.counts(), (0, 0, 3));
    let why = "BackoffLimitExceeded: Job has reached the specified backoff limit";
    assert_eq!(scene.conditions(), [format!("FailureTarget {why}"), format!("Failed {why}")]);
    assert_eq!(scene.told("BackoffLimitExceeded"), 1);
    assert_eq!(scene.job()["status"].get("completionTime"), None);
}

#[test]
fn a_success_ends_a_row_of_failures() {
    let mut scene = Scene::new(json!({"completions": 9, "parallelism": 1}));
    scene.end_all(1);
    scene.later(10);
    scene.now += Duration::from_secs(1);
    scene.end_all(0);
    assert_eq!(scene.live().len(), 1, "at once");
    scene.now += Duration::from_secs(1);
    scene.end_all(1);
    assert_eq!(scene.recheck, Some(Duration::from_secs(10)));
}

#[test]
fn what_runs_when_a_job_fails_goes_and_counts_before_it_has_failed() {
    let mut scene = Scene::new(json!({"completions": 3, "parallelism": 3, "backoffLimit": 0}));
    let first = scene.live()[0].clone();
    scene.end(&first, 1);
    let plan = (ROW.plan)(&scene.cluster.world, &Scene::key(), scene.now);
    scene.carry_out(&plan);
    assert_eq!(scene.conditions().len(), 1, "it is decided");
    assert_eq!((scene.counts(), scene.count("terminating")), ((0, 0, 0), 2));
    assert_eq!(scene.told("SuccessfulDelete"), 2);
    scene.settle();
    assert_eq!(scene.counts(), (0, 0, 3));
    assert_eq!(scene.conditions().len(), 2);
}

#[test]
fn restarts_within_a_pod_count_against_the_limit() {
    let template = json!({
        "metadata": {"labels": {"batch.kubernetes.io/controller-uid": "uid-Job-j"}},
        "spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i"}]},
    });
    let mut scene = Scene::new(json!({"completions": 1, "backoffLimit": 2, "template": template}));
    let restarted = |scene: &mut Scene, times: i32| {
        let pod = scene.live()[0].clone();
        scene.cluster.edit(Kind::Pod, &pod, |pod| {
            let container = json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": times});
            pod["status"] = json!({"phase": "Running", "containerStatuses": [container]});
        });
        scene.settle();
    };
    restarted(&mut scene, 1);
    assert_eq!(scene.conditions(), [""; 0]);
    restarted(&mut scene, 2);
    assert_eq!(scene.told("BackoffLimitExceeded"), 1);
}

#[test]
fn an_indexed_job_tells_each_pod_its_index_and_writes_which_are_done() {
    let mut scene = Scene::new(indexed(json!({"completions": 5, "parallelism": 3})));
    assert_eq!(working(&scene), [0, 1, 2]);
    let pod = scene.pods().into_iter().find(|pod| attempt::index(pod) == Some(1)).expect("one");
    assert!(pod.name().starts_with("j-1-"), "{}", pod.name());
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("j-1-"));
    assert_eq!(pod.label(batch::COMPLETION_INDEX), Some("1"));
    let spec = pod.spec.as_ref().expect("a spec");
    assert_eq!(spec.hostname.as_deref(), Some("j-1"));
    let variable = serde_json::to_value(&spec.containers[0].env).expect("JSON");
    let field = json!({"fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"});
    assert_eq!(variable, json!([{"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": field}}]));
    for index in [2, 0] {
        let pod = scene.pods().into_iter().find(|pod| attempt::index(pod) == Some(index)).expect("one").key();
        scene.end(&pod, 0);
        scene.settle();
    }
    assert_eq!(scene.job()["status"]["completedIndexes"], "0,2");
    assert_eq!(working(&scene), [1, 3, 4]);
    let pod = scene.pods().into_iter().find(|pod| attempt::index(pod) == Some(3)).expect("one").key();
    scene.end(&pod, 1);
    scene.later(10);
    assert_eq!(working(&scene), [1, 3, 4], "the index that failed is tried again");
    scene.end_all(0);
    assert_eq!((scene.counts(), &scene.job()["status"]["completedIndexes"]), ((0, 5, 1), &json!("0-4")));
    assert_eq!(scene.conditions().len(), 2);
}

#[test]
fn two_pods_of_one_index_are_one_too_many() {
    let mut scene = Scene::new(indexed(json!({"completions": 2, "parallelism": 2})));
    let mut twin = scene.pods()[0].as_ref().clone();
    twin.metadata.name = Some("twin".into());
    twin.metadata.uid = Some("twin".into());
    scene.cluster.put(Kind::Pod, knoll_api::object::to_json(&twin));
    let mut none = twin.clone();
    none.metadata.name = Some("none".into());
    none.metadata.uid = Some("none".into());
    none.metadata.annotations = None;
    scene.cluster.put(Kind::Pod, knoll_api::object::to_json(&none));
    scene.settle();
    assert_eq!((working(&scene), scene.counts()), (vec![0, 1], (2, 0, 0)));
    assert_eq!(scene.told("SuccessfulDelete"), 2);
}

#[test]
fn each_index_has_attempts_and_pauses_of_its_own() {
    let spec = json!({"completions": 3, "parallelism": 3, "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX});
    let mut scene = Scene::new(indexed(spec));
    let of = |scene: &Scene, index: i32| {
        let pods = scene.pods().into_iter();
        pods.filter(|pod| attempt::index(pod) == Some(index) && pods::is_active(pod)).map(|pod| pod.key()).next_back()
    };
    let first = of(&scene, 1).expect("one");
    scene.end(&first, 1);
    scene.settle();
    assert_eq!(scene.recheck, Some(Duration::from_secs(10)));
    let kept = scene.cluster.world.pods.get(&first).expect("it is there");
    assert!(attempt::is_uncounted(&kept), "it knows how often its index failed");
    scene.later(10);
    let second = of(&scene, 1).expect("another");
    let pod = scene.cluster.world.pods.get(&second).expect("it is there");
    assert_eq!(pod.annotation(batch::INDEX_FAILURES), Some("1"));
    assert!(!attempt::is_uncounted(&scene.cluster.world.pods.get(&first).expect("it is there")), "another knows it");
    scene.end(&second, 1);
    scene.settle();
    assert_eq!(scene.job()["status"]["failedIndexes"], "1");
    assert_eq!(scene.conditions(), [""; 0], "the others go on");
    scene.end_all(0);
    assert_eq!(scene.counts(), (0, 2, 2));
    let why = "FailedIndexes: Job has failed indexes";
    assert_eq!(scene.conditions(), [format!("FailureTarget {why}"), format!("Failed {why}")]);
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let spec = json!({
        "completions": 9, "parallelism": 3, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1, "backoffLimit": i32::MAX,
    });
    let mut scene = Scene::new(indexed(spec));
    let pods = scene.live();
    scene.end(&pods[0], 1);
    scene.settle();
    assert_eq!(scene.conditions(), [""; 0]);
    scene.end(&pods[1], 1);
    scene.settle();
    assert_eq!(scene.told("MaxFailedIndexesExceeded"), 1);
    assert_eq!((scene.job()["status"]["failedIndexes"].clone(), working(&scene)), (json!("0,1"), vec![]));
}

#[test]
fn a_failure_policy_ends_the_job_or_an_index_or_lets_a_failure_pass() {
    let rule = |action: &str, code: i32| json!({"action": action, "onExitCodes": {"operator": "In", "values": [code]}});
    let policy = json!({"rules": [rule("FailJob", 42), rule("Ignore", 7), rule("FailIndex", 9)]});
    let spec = json!({
        "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX, "podFailurePolicy": policy,
    });
    let mut scene = Scene::new(indexed(spec));
    let index = |scene: &Scene, index: i32| {
        let pods = scene.pods().into_iter();
        pods.filter(|pod| attempt::index(pod) == Some(index) && pods::is_active(pod)).map(|pod| pod.key()).next_back()
    };
    for pause in [10, 20] {
        let pod = index(&scene, 0).expect("one");
        scene.end(&pod, 7);
        scene.settle();
        scene.later(pause);
    }
    assert_eq!((working(&scene), scene.counts()), (vec![0, 1], (2, 0, 0)), "ignored, however often");
    let pod = scene.cluster.world.pods.get(&index(&scene, 0).expect("one")).expect("it is there");
    assert_eq!(pod.annotation(batch::INDEX_IGNORED_FAILURES), Some("2"));
    scene.end(&pod.key(), 9);
    scene.settle();
    assert_eq!(scene.job()["status"]["failedIndexes"], "0", "without a second attempt");
    let pod = index(&scene, 1).expect("one");
    scene.end(&pod, 42);
    scene.settle();
    let why = format!("Container c for pod {pod} failed with exit code 42 matching FailJob rule at index 0");
    assert_eq!(
        scene.conditions(),
        [format!("FailureTarget PodFailurePolicy: {why}"), format!("Failed PodFailurePolicy: {why}")]
    );
    assert_eq!(scene.counts(), (0, 0, 2));
}

#[test]
fn a_success_policy_ends_the_job_and_what_still_runs_has_not_failed() {
    let policy = json!({"rules": [{"succeededIndexes": "0,2-3", "succeededCount": 2}]});
    let mut scene = Scene::new(indexed(json!({"completions": 4, "parallelism": 4, "successPolicy": policy})));
    for index in [1, 2, 3] {
        assert_eq!(scene.conditions(), [""; 0]);
        let pod = scene.pods().into_iter().find(|pod| attempt::index(pod) == Some(index)).expect("one").key();
        scene.end(&pod, 0);
        scene.settle();
    }
    scene.forget_going();
    let why = "SuccessPolicy: Matched rules at index 0";
    assert_eq!(scene.conditions(), [format!("SuccessCriteriaMet {why}"), format!("Complete {why}")]);
    assert_eq!(scene.counts(), (0, 3, 0));
}

#[test]
fn what_is_going_is_replaced_at_once_or_when_it_has_ended() {
    for (policy, while_going) in [("TerminatingOrFailed", 1), ("Failed", 0)] {
        let mut scene = Scene::new(json!({"completions": 1, "podReplacementPolicy": policy}));
        let pod = scene.live()[0].clone();
        scene.cluster.edit(Kind::Pod, &pod, |pod| {
            pod["metadata"]["deletionTimestamp"] = NOW.to_string().into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
            pod["metadata"]["finalizers"].as_array_mut().expect("a list").push("keeps/it".into());
        });
        scene.later(31);
        assert_eq!(scene.count("active"), while_going, "{policy}");
        assert_eq!(scene.count("terminating"), 1, "{policy}");
        assert_eq!(scene.count("failed"), while_going, "{policy}");
        scene.end(&pod, 143);
        scene.later(10);
        assert_eq!((scene.counts(), scene.count("terminating")), ((1, 0, 1), 0), "{policy}");
    }
}

#[test]
fn a_deadline_ends_a_job_that_runs_too_long() {
    let mut scene = Scene::new(json!({"completions": 2, "activeDeadlineSeconds": 60}));
    assert_eq!(scene.recheck, Some(Duration::from_secs(60)));
    scene.end_all(0);
    scene.later(59);
    assert_eq!((scene.recheck, scene.conditions().len()), (Some(Duration::from_secs(1)), 0));
    scene.later(1);
    let why = "DeadlineExceeded: Job was active longer than specified deadline";
    assert_eq!(scene.conditions(), [format!("FailureTarget {why}"), format!("Failed {why}")]);
    assert_eq!(scene.counts(), (0, 1, 1));
}

#[test]
fn a_job_that_ended_goes_after_its_time_to_live() {
    let mut scene = Scene::new(json!({"completions": 1, "ttlSecondsAfterFinished": 30}));
    scene.later(100);
    scene.end_all(0);
    assert_eq!(scene.recheck, Some(Duration::from_secs(30)));
    scene.later(29);
    assert!(scene.cluster.world.jobs.contains(&Scene::key()));
    scene.later(1);
    assert!(!scene.cluster.world.jobs.contains(&Scene::key()));
}

#[test]
fn a_suspended_job_lets_its_pods_go_uncounted_and_begins_anew() {
    let mut scene =
        Scene::new(json!({"completions": 2, "parallelism": 2, "suspend": true, "activeDeadlineSeconds": 60}));
    assert_eq!((scene.counts(), scene.job()["status"].get("startTime").cloned()), ((0, 0, 0), None));
    assert_eq!(scene.conditions(), ["Suspended JobSuspended: Job suspended"]);
    scene.edit(|job| job["spec"]["suspend"] = false.into());
    assert_eq!((scene.counts(), scene.conditions().len()), ((2, 0, 0), 0));
    scene.later(50);
    scene.edit(|job| job["spec"]["suspend"] = true.into());
    assert_eq!((scene.counts(), scene.pods().len()), ((0, 0, 0), 0), "none of them has failed");
    scene.later(1000);
    scene.edit(|job| job["spec"]["suspend"] = false.into());
    assert_eq!(scene.counts(), (2, 0, 0), "without a pause");
    assert_eq!(scene.job()["status"]["startTime"], scene.now.to_string(), "its time begins anew");
    assert_eq!((scene.told("Suspended"), scene.told("Resumed")), (2, 2));
    scene.end_all(0);
    assert_eq!(scene.counts(), (0, 2, 0));
}

#[test]
fn fewer_at_a_time_let_the_least_useful_go_uncounted() {
    let mut scene = Scene::new(json!({"completions": 9, "parallelism": 3}));
    scene.edit(|job| job["spec"]["parallelism"] = 1.into());
    assert_eq!((scene.counts(), scene.pods().len()), ((1, 0, 0), 1));
}

#[test]
fn pods_are_taken_in_and_let_go_as_the_selector_says() {
    let mut scene = Scene::new(json!({
        "completions": 1, "manualSelector": true, "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}},
    }));
    let own = scene.live()[0].clone();
    scene.cluster.put(Kind::Pod, json!({"metadata": {"name": "a-stray", "labels": {"app": "x"}}}));
    scene.settle();
    let stray = scene.cluster.world.pods.get(&Key::new("default", "a-stray"));
    let left = [own.clone(), Key::new("default", "a-stray")].into_iter().filter(|key| scene.live().contains(key));
    assert_eq!(left.count(), 1, "one is enough");
    assert!(stray.is_none_or(|pod| pod.controller().is_some() && attempt::is_uncounted(&pod)));
    let last = scene.live()[0].clone();
    scene.cluster.edit(Kind::Pod, &last, |pod| pod["metadata"]["labels"]["app"] = "y".into());
    scene.settle();
    let pod = scene.cluster.world.pods.get(&last).expect("it is there");
    assert!(pod.controller().is_none() && !attempt::is_uncounted(&pod), "it is somebody else's");
}

#[test]
fn a_job_of_another_controller_is_left_alone_but_goes_in_time() {
    let mut scene = Scene::new(json!({"managedBy": "example.com/queue", "ttlSecondsAfterFinished": 0}));
    assert!(scene.pods().is_empty() && scene.job().get("status").is_none_or(Value::is_null));
    scene.edit(|job| {
        let condition = json!({"type": "Failed", "status": "True", "lastTransitionTime": NOW.to_string()});
        job["status"] = json!({"conditions": [condition]});
    });
    assert!(!scene.cluster.world.jobs.contains(&Scene::key()));
}

#[test]
fn pods_that_nobody_counts_any_more_are_let_go() {
    let mut scene = Scene::new(json!({"completions": 2, "parallelism": 2}));
    let pods = scene.live();
    // Its Job is gone, and left it.
    scene.cluster.edit(Kind::Pod, &pods[0], |pod| pod["metadata"]["ownerReferences"] = json!([]));
    scene.cluster.world.apply(Change::Gone(Kind::Job, Scene::key()));
    scene.settle();
    let held: Vec<_> = scene.pods().iter().filter(|pod| attempt::is_uncounted(pod)).map(|pod| pod.key()).collect();
    assert!(held.is_empty(), "{held:?}");
    // Whom it wakes: all of them.
    let job = json!({"metadata": {"namespace": "default", "name": "j", "uid": "uid-Job-j"}});
    let job = Object::from_json(Kind::Job, job).expect("a Job");
    assert_eq!(RELEASE.wakes[0].1(&scene.cluster.world, &job, Kind::Pod), [pods[1].clone()]);
}

#[test]
fn a_job_is_not_complete_before_it_began() {
    let mut scene = Scene::new(json!({"completions": 1}));
    scene.now = NOW - Duration::from_secs(86_400);
    scene.end_all(0);
    assert_eq!(scene.job()["status"]["completionTime"], NOW.to_string());
}

#[test]
fn a_job_that_is_deleted_first_counts_and_lets_go() {
    let mut scene = Scene::new(json!({"completions": 2, "parallelism": 2}));
    scene.cluster.edit(Kind::Job, &Scene::key(), |job| {
        job["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
        job["metadata"]["deletionTimestamp"] = NOW.to_string().into();
    });
    let first = scene.live()[0].clone();
    scene.end(&first, 0);
    scene.settle();
    assert_eq!(scene.counts(), (1, 1, 0), "nothing new is made");
    assert!(scene.pods().iter().all(|pod| !attempt::is_uncounted(pod)));
}

#[test]
fn a_refusal_is_told_and_what_is_counted_is_not_held_up() {
    let mut scene = Scene::new(json!({"completions": 2, "parallelism": 1}));
    scene.end_all(0);
    let next = scene.live()[0].clone();
    scene.cluster.world.apply(Change::Gone(Kind::Pod, next.clone()));
    let refusal = Refusal { reason: "Forbidden".into(), message: "exceeded quota".into(), at: NOW };
    let object = (Kind::Pod, next);
    scene.cluster.world.observe(Observation::Refused { asker: (Kind::Job, Scene::key()), object, refusal });
    let plan = (ROW.plan)(&scene.cluster.world, &Scene::key(), NOW);
    let told =
        |want: &Want| matches!(want, Want::RecordEvent(event) if event.message == "Error creating: exceeded quota");
    let at = |found: fn(&Want) -> bool| plan.wants.iter().position(found).expect("it is wanted");
    assert!(plan.wants.iter().any(told));
    assert!(at(|want| matches!(want, Want::Status(_))) < at(|want| matches!(want, Want::Create(_))));
    let Want::Status(status) = &plan.wants[at(|want| matches!(want, Want::Status(_)))] else { panic!("a status") };
    assert_eq!(status.to_json()["status"].get("active").cloned(), None, "it does not run");
}

#[test]
fn what_one_pod_costs_is_its_job_however_many_there_are() {
    let cost = |jobs: usize| {
        let mut cluster = Cluster::new();
        for at in 0..jobs {
            let (name, uid) = (format!("job{at}"), format!("uid-{at}"));
            let labels = json!({"batch.kubernetes.io/controller-uid": uid});
            let spec = json!({
                "parallelism": 1, "completions": 1, "backoffLimit": 6, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": []}},
            });
            cluster.put(Kind::Job, json!({"metadata": {"name": name, "uid": uid}, "spec": spec}));
        }
        let key = Key::new("default", "job7");
        for _ in 0..3 {
            let plan = (ROW.plan)(&cluster.world, &key, NOW);
            plan.wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        }
        let pod = cluster.world.pods.iter().next().expect("one").key();
        cluster.edit(Kind::Pod, &pod, |pod| pod["status"] = json!({"phase": "Succeeded"}));
        let rows = crate::Rows::new(vec![ROW, RELEASE]);
        let changed = cluster.changes.pop().expect("a change");
        let before = cluster.world.visits();
        let woken = rows.woken(&cluster.world, &changed);
        let keys = woken.keys.len();
        for (row, key) in woken.keys {
            (rows.all()[row].plan)(&cluster.world, &key, NOW);
        }
        (keys, cluster.world.visits() - before)
    };
    let many = cost(10_000);
    assert_eq!(many, cost(10));
    assert!(many.0 == 2 && many.1 <= 20, "{many:?}");
}

#[test]
fn successes_that_were_counted_are_not_read_again() {
    let cost = |done: usize| {
        let mut scene = Scene::new(json!({"completions": 1000, "parallelism": 1}));
        (0..done).for_each(|_| scene.end_all(0));
        let (before, pods) = (scene.cluster.world.visits(), scene.cluster.world.pods.len() as u64);
        (ROW.plan)(&scene.cluster.world, &Scene::key(), scene.now);
        (scene.cluster.world.visits() - before, pods)
    };
    let (few, many) = (cost(2), cost(40));
    assert_eq!((few.0, many.0, many.1), (few.0, few.0, 41));
}
