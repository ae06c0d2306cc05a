use expect_test::expect;
use serde_json::{Value, json};

use super::*;
use crate::{
    World,
    kube::{
        fixture::{NOW, make_ready, plan_of, put, settle, world},
        replica_set,
    },
};

fn deployment(w: &mut World, image: &str, replicas: i32, strategy: Value) {
    let generation = w.deployments.iter().next().and_then(|d| d.metadata.generation).unwrap_or_default() + 1;
    let before = w.object(Kind::Deployment, &Key::new("a", "d")).map(|object| object.to_json());
    let before = before.unwrap_or_else(|| json!({"metadata": {"namespace": "a", "name": "d"}}));
    let mut value = before;
    value["metadata"]["generation"] = generation.into();
    value["spec"] = json!({
        "replicas": replicas, "strategy": strategy, "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
    });
    put(w, Kind::Deployment, value);
}

/// Lets every controller act until nothing is left to do, pods becoming ready one round late; at every step no more
/// pods exist and no fewer are available than the strategy allows. Returns what the sets went through.
fn roll(w: &mut World, most: usize, least: usize) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..100 {
        let mut printed = plan_of(&ROW, w, "a/d");
        let keys: Vec<Key> = w.replica_sets.keys().collect();
        for key in &keys {
            printed += &plan_of(&replica_set::ROW, w, &key.to_string());
            let ready = w.pods.iter().filter(|pod| crate::kube::pods::is_ready(pod)).count();
            assert!(w.pods.len() <= most, "{} pods\n{printed}", w.pods.len());
            assert!(ready >= least, "{ready} ready\n{printed}");
        }
        let state =
            w.replica_sets.iter().map(|set| set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1).to_string());
        let state = state.collect::<Vec<_>>().join(" ");
        if seen.last() != Some(&state) {
            seen.push(state);
        }
        let waiting: Vec<Key> =
            w.pods.iter().filter(|pod| !crate::kube::pods::is_ready(pod)).map(|pod| pod.key()).collect();
        waiting.iter().for_each(|pod| make_ready(w, pod));
        if printed.is_empty() && waiting.is_empty() {
            return seen;
        }
    }
    panic!("no rest: {seen:?}");
}

fn image_of_pods(w: &World) -> Vec<String> {
    let images = w.pods.iter().map(|pod| pod.spec.as_ref().and_then(|s| s.containers[0].image.clone()));
    images.map(Option::unwrap_or_default).collect()
}

fn condition(w: &World, type_: &str) -> String {
    let status = w.deployments.iter().next().and_then(|d| d.status.clone()).expect("a status");
    let found = status.conditions.iter().flatten().find(|c| c.type_ == type_).expect("the condition");
    format!("{} {}", found.status, found.reason.as_deref().unwrap_or_default())
}

#[test]
fn a_new_deployment_gets_its_replicas_at_once_and_reports_them() {
    let mut w = world(&[]);
    deployment(&mut w, "one", 3, json!({}));
    let first = plan_of(&ROW, &mut w, "a/d");
    assert!(first.starts_with("create ReplicaSet a/d-"), "{first}");
    assert_eq!(condition(&w, "Progressing"), "True NewReplicaSetCreated");
    assert_eq!(condition(&w, "Available"), "False MinimumReplicasUnavailable");
    roll(&mut w, 3, 0);
    assert_eq!(condition(&w, "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(condition(&w, "Available"), "True MinimumReplicasAvailable");
    let d = w.deployments.iter().next().expect("it exists");
    assert_eq!(d.annotation(REVISION), Some("1"));
    let status = d.status.as_ref().expect("a status");
    assert_eq!((status.replicas, status.ready_replicas, status.unavailable_replicas), (Some(3), Some(3), None));
}

#[test]
fn a_rolling_update_stays_within_surge_and_gap() {
    let mut w = world(&[]);
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    deployment(&mut w, "one", 3, strategy.clone());
    roll(&mut w, 3, 0);
    deployment(&mut w, "two", 3, strategy);
    roll(&mut w, 4, 3);
    assert_eq!(image_of_pods(&w), ["two", "two", "two"]);
    let revisions: Vec<_> =
        w.replica_sets.iter().map(|set| set.annotation(REVISION).unwrap_or_default().to_owned()).collect();
    assert!(["1", "2"].iter().all(|one| revisions.iter().any(|revision| revision == one)), "{revisions:?}");
    assert_eq!(
        w.deployments.iter().next().and_then(|d| d.annotation(REVISION).map(str::to_owned)).as_deref(),
        Some("2")
    );
}

#[test]
fn without_surge_the_old_make_room_first() {
    let mut w = world(&[]);
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "50%"}});
    deployment(&mut w, "one", 4, strategy.clone());
    roll(&mut w, 4, 0);
    deployment(&mut w, "two", 4, strategy);
    roll(&mut w, 4, 2);
    assert_eq!(image_of_pods(&w), ["two"; 4]);
}

#[test]
fn going_back_reuses_the_old_set_as_a_new_revision() {
    let mut w = world(&[]);
    for image in ["one", "two", "one"] {
        deployment(&mut w, image, 1, json!({}));
        roll(&mut w, 2, 0);
    }
    assert_eq!(w.replica_sets.len(), 2);
    assert_eq!(
        w.deployments.iter().next().and_then(|d| d.annotation(REVISION).map(str::to_owned)).as_deref(),
        Some("3")
    );
    assert_eq!(image_of_pods(&w), ["one"]);
}

#[test]
fn recreate_never_runs_old_and_new_together() {
    let mut w = world(&[]);
    deployment(&mut w, "one", 2, json!({"type": "Recreate"}));
    roll(&mut w, 2, 0);
    deployment(&mut w, "two", 2, json!({"type": "Recreate"}));
    plan_of(&ROW, &mut w, "a/d");
    let scales: std::collections::BTreeSet<_> =
        w.replica_sets.iter().map(|set| set.spec.as_ref().and_then(|s| s.replicas)).collect();
    assert_eq!(scales, [Some(0)].into(), "old scaled down, new not yet up");
    roll(&mut w, 2, 0);
    assert_eq!(image_of_pods(&w), ["two", "two"]);
}

#[test]
fn scaling_is_one_step_down_the_chain() {
    let mut w = world(&[]);
    deployment(&mut w, "one", 0, json!({}));
    roll(&mut w, 0, 0);
    assert_eq!(condition(&w, "Progressing"), "True NewReplicaSetAvailable");
    deployment(&mut w, "one", 2, json!({}));
    let printed = plan_of(&ROW, &mut w, "a/d");
    assert!(printed.starts_with("update ReplicaSet a/d-"), "the scale comes first: {printed}");
    roll(&mut w, 2, 0);
    assert_eq!(w.pods.len(), 2);
    deployment(&mut w, "one", 0, json!({}));
    roll(&mut w, 2, 0);
    assert_eq!(w.pods.len(), 0);
    assert_eq!(condition(&w, "Progressing"), "True NewReplicaSetAvailable", "scaling is no rollout");
}

#[test]
fn a_change_of_scale_during_a_rollout_is_shared() {
    let mut w = world(&[]);
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}});
    deployment(&mut w, "one", 4, strategy.clone());
    roll(&mut w, 4, 0);
    deployment(&mut w, "two", 4, strategy.clone());
    plan_of(&ROW, &mut w, "a/d");
    deployment(&mut w, "two", 10, strategy);
    plan_of(&ROW, &mut w, "a/d");
    let scales: Vec<_> = w.replica_sets.iter().filter_map(|set| set.spec.as_ref()?.replicas).collect();
    assert_eq!(scales.iter().sum::<i32>(), 12, "{scales:?}");
    assert!(scales.iter().all(|scale| *scale >= 4), "{scales:?}");
    roll(&mut w, 12, 0);
    assert_eq!(image_of_pods(&w).len(), 10);
}

#[test]
fn a_rollout_that_stands_still_times_out_after_asking_to_be_looked_at() {
    let mut w = world(&[]);
    deployment(&mut w, "one", 1, json!({}));
    settle(&mut w, &[(&ROW, "a/d")]);
    let plan_at = |w: &World, seconds: i64| {
        let now = Timestamp::from_second(NOW.as_second() + seconds).expect("a time");
        (ROW.plan)(w, &Key::new("a", "d"), now)
    };
    let early = plan_at(&w, 10);
    assert!(early.is_empty());
    assert_eq!(early.recheck, Some(std::time::Duration::from_secs(591)));
    let late = plan_at(&w, 601);
    crate::kube::fixture::carry_out(&mut w, &late.wants);
    assert_eq!(condition(&w, "Progressing"), "False ProgressDeadlineExceeded");
    assert!(plan_at(&w, 700).is_empty(), "said once");
}

#[test]
fn what_keeps_pods_from_being_made_is_reported() {
    let mut w = world(&[]);
    deployment(&mut w, "one", 1, json!({}));
    plan_of(&ROW, &mut w, "a/d");
    let set = w.replica_sets.iter().next().expect("a set").as_ref().clone();
    let mut value = Object::from(set).to_json();
    value["status"] = json!({"replicas": 0, "observedGeneration": 1, "conditions": [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]});
    put(&mut w, Kind::ReplicaSet, value);
    plan_of(&ROW, &mut w, "a/d");
    assert_eq!(condition(&w, "ReplicaFailure"), "True FailedCreate");
}

#[test]
fn history_beyond_the_limit_is_forgotten() {
    let mut w = world(&[]);
    for image in ["one", "two", "three", "four"] {
        deployment(&mut w, image, 1, json!({}));
        let mut value = w.object(Kind::Deployment, &Key::new("a", "d")).expect("it exists").to_json();
        value["spec"]["revisionHistoryLimit"] = 1.into();
        put(&mut w, Kind::Deployment, value);
        roll(&mut w, 2, 0);
    }
    assert_eq!(w.replica_sets.len(), 2);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut w = world(&[]);
    deployment(&mut w, "one", 1, json!({}));
    roll(&mut w, 1, 0);
    deployment(&mut w, "two", 2, json!({}));
    let mut value = w.object(Kind::Deployment, &Key::new("a", "d")).expect("it exists").to_json();
    value["spec"]["paused"] = true.into();
    put(&mut w, Kind::Deployment, value);
    roll(&mut w, 2, 0);
    assert_eq!(image_of_pods(&w), ["one", "one"]);
    assert_eq!(condition(&w, "Progressing"), "Unknown DeploymentPaused");
}

#[test]
fn names_follow_the_template() {
    let mut w = world(&[]);
    deployment(&mut w, "one", 1, json!({}));
    let printed = plan_of(&ROW, &mut w, "a/d");
    expect![[""]]
        .assert_eq(printed.lines().filter(|line| !line.contains("a/d")).collect::<Vec<_>>().join("\n").as_str());
    let set = w.replica_sets.iter().next().expect("a set");
    assert_eq!(set.name(), format!("d-{}", set.label(TEMPLATE_HASH).expect("a hash")));
}
