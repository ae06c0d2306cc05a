//! ReplicaSet → pods: as many as it asks for, from its template.
//!
//! A new pod's name is a function of the ReplicaSet's uid and a slot number, and the lowest free slots are
//! taken. So a plan made from a World that has not yet heard of the pods of the last plan names the same pods
//! again, which the API server refuses, instead of more of them. Slots whose pod is going away stay taken until
//! it is gone.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use jiff::SignedDuration;
use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    k8s_openapi::{
        api::{
            apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus},
            core::v1::Pod,
        },
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    },
};

use super::{hash, pods, selector};
use crate::{Absence, EventType, Plan, Row, World, by_controller, terms::selectors_of};

/// Most pods one plan creates or deletes; the rest follows once these are seen.
const BURST: usize = 500;
/// Pods that failed within so long of each other failed in a row: twice the longest pause between them.
const IN_A_ROW: SignedDuration = SignedDuration::from_mins(10);
/// First and longest pause between pods that fail.
const FAILED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// See the module.
pub(super) const ROW: Row = Row {
    name: "replica-set",
    of: Kind::ReplicaSet,
    wakes: &[(Kind::Pod, by_controller), (Kind::Pod, by_selector)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// ReplicaSets that could adopt a pod without a controller.
fn by_selector(world: &World, object: &Object, _of: Kind) -> Vec<Key> {
    let meta = object.meta();
    if meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true)) {
        return Vec::new();
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let sets = selectors_of(namespace, meta.labels.as_ref()).flat_map(|term| world.replica_sets.find(term));
    let picking =
        sets.filter(|set| set.namespace() == namespace && selector::picks(&spec(set).selector, meta.labels.as_ref()));
    picking.map(|set| set.key()).collect()
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(set) = world.replica_sets.get(key) else { return plan };
    let set = set.as_ref();
    let (owned, strangers) = pods_of(world, set);
    let owned: Vec<&Pod> = owned.iter().map(AsRef::as_ref).collect();
    let active: Vec<&Pod> = owned.iter().copied().filter(|pod| pods::is_active(pod)).collect();
    let mut failure = None;
    if !set.is_deleting() {
        adopt(&mut plan, set, strangers);
        if !plan.is_empty() {
            // Counted once they are seen to be ours.
            return plan;
        }
        let wanted = usize::try_from(wanted(set)).unwrap_or_default();
        if active.len() < wanted {
            if let Some(pause) = pause(&owned, now) {
                plan.recheck_after(pause);
                report(&mut plan, set, &owned, None, now);
                return plan;
            }
            let missing = missing(world, set, wanted - active.len());
            failure = missing.iter().find_map(|pod| refusal(world, pod));
            if failure.is_none() {
                create(&mut plan, set, &missing);
            }
            report(&mut plan, set, &owned, failure.as_deref(), now);
            if failure.is_some() {
                create(&mut plan, set, &missing);
            }
            return plan;
        }
        delete_surplus(&mut plan, set, active, wanted);
    }
    report(&mut plan, set, &owned, failure.as_deref(), now);
    plan
}

/// What is wanted of a ReplicaSet; nothing when it does not say.
fn spec(set: &ReplicaSet) -> &ReplicaSetSpec {
    static EMPTY: LazyLock<ReplicaSetSpec> = LazyLock::new(ReplicaSetSpec::default);
    set.spec.as_ref().unwrap_or(&EMPTY)
}

/// Replicas asked for.
fn wanted(set: &ReplicaSet) -> i32 {
    spec(set).replicas.unwrap_or(1).max(0)
}

/// A pod to take in (`true`) or to let go (`false`).
type Stranger = (Arc<Pod>, bool);

/// Pods it controls and that still match, and those to take in or to let go.
fn pods_of(world: &World, set: &ReplicaSet) -> (Vec<Arc<Pod>>, Vec<Stranger>) {
    let matches = |pod: &Pod| selector::picks(&spec(set).selector, pod.meta().labels.as_ref());
    let (mut owned, mut strangers) = (Vec::new(), Vec::new());
    for pod in world.pods.owned_by(set.uid()) {
        if matches(&pod) {
            owned.push(pod);
        } else if !pod.is_deleting() {
            strangers.push((pod, false));
        }
    }
    let orphans = world.pods.uncontrolled(set.namespace());
    strangers.extend(orphans.filter(|pod| pods::is_active(pod) && matches(pod)).map(|pod| (pod, true)));
    (owned, strangers)
}

fn adopt(plan: &mut Plan, set: &ReplicaSet, strangers: Vec<Stranger>) {
    for (pod, take) in strangers {
        let mut wanted = Pod::clone(&pod);
        let owners = wanted.metadata.owner_references.get_or_insert_default();
        owners.retain(|owner| owner.uid != set.uid());
        if take {
            owners.push(set.controller_reference());
        }
        plan.update(pod.as_ref(), wanted);
    }
}

/// The pods to make: the lowest slots that no pod in the World occupies.
fn missing(world: &World, set: &ReplicaSet, count: usize) -> Vec<Pod> {
    let Some(template) = &spec(set).template else { return Vec::new() };
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut names = BTreeSet::new();
    let mut slot = 0_u64;
    let mut made = Vec::new();
    while made.len() < count.min(BURST) {
        let name = hash::name(set.name(), &[set.uid(), &slot.to_string()]);
        slot += 1;
        if world.pods.contains(&Key::new(set.namespace(), name.clone())) || !names.insert(name.clone()) {
            continue;
        }
        made.push(Pod {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", set.name())),
                name: Some(name),
                namespace: set.metadata.namespace.clone(),
                labels: metadata.labels.clone(),
                annotations: metadata.annotations.clone(),
                finalizers: metadata.finalizers.clone(),
                owner_references: Some(vec![set.controller_reference()]),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        });
    }
    made
}

/// How long to wait before the next pod is made: a node may reject each of them at once, and an Event or an object for
/// each would be endless. Twice as long for each pod that has failed in this row: those before a time in which none was
/// made, because one served, are history.
fn pause(owned: &[&Pod], now: Timestamp) -> Option<Duration> {
    let failed = owned.iter().filter(|pod| pods::phase(pod) == "Failed" && !pod.is_deleting());
    let mut made: Vec<Timestamp> = failed.filter_map(|pod| taken_in(pod)).collect();
    made.sort_unstable_by(|a, b| b.cmp(a));
    let newest = made.first().copied();
    let later = std::iter::once(now).chain(made.iter().copied());
    let in_row = made.iter().zip(later).take_while(|(at, later)| later.duration_since(**at) <= IN_A_ROW);
    let count = u32::try_from(in_row.count()).unwrap_or(u32::MAX);
    if count == 0 {
        return None;
    }
    let pause = FAILED.0.saturating_mul(2_u32.saturating_pow(count.saturating_sub(1))).min(FAILED.1);
    let left = newest?.checked_add(pause).ok()?.duration_since(now);
    // A clock that was set back does not make it longer.
    Duration::try_from(left).ok().filter(|left| !left.is_zero()).map(|left| left.min(pause))
}

/// When a node took a pod in, by the time that decisions are made by; the time of its creation is of the wall clock, and that
/// may have been set.
fn taken_in(pod: &Pod) -> Option<Timestamp> {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    started.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

fn refusal(world: &World, pod: &Pod) -> Option<String> {
    world.observed.refusals.get(&(Kind::Pod, pod.key())).map(|refusal| refusal.message.clone())
}

fn create(plan: &mut Plan, set: &ReplicaSet, missing: &[Pod]) {
    for pod in missing {
        plan.create(pod.clone());
        plan.event(set, EventType::Normal, "SuccessfulCreate", format!("Created pod: {}", pod.name()));
    }
}

/// Deletes what is too much, the least useful first.
fn delete_surplus(plan: &mut Plan, set: &ReplicaSet, mut active: Vec<&Pod>, wanted: usize) {
    let surplus = active.len().saturating_sub(wanted).min(BURST);
    if surplus == 0 {
        return;
    }
    active.sort_by_cached_key(|pod| pods::usefulness(pod));
    for pod in &active[..surplus] {
        plan.delete(*pod);
        plan.event(set, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
    }
}

fn report(plan: &mut Plan, set: &ReplicaSet, owned: &[&Pod], failure: Option<&str>, now: Timestamp) {
    let min_ready = Duration::from_secs(u64::try_from(spec(set).min_ready_seconds.unwrap_or_default()).unwrap_or(0));
    let template_labels =
        spec(set).template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    let (mut replicas, mut labelled, mut ready, mut available) = (0, 0, 0, 0);
    for pod in owned.iter().filter(|pod| pods::is_active(pod)) {
        replicas += 1;
        labelled += i32::from(template_labels.iter().all(|(key, value)| pod.label(key) == Some(value)));
        if let Some(left) = pods::until_available(pod, min_ready, now) {
            ready += 1;
            if left.is_zero() {
                available += 1;
            } else {
                plan.recheck_after(left);
            }
        }
    }
    let status = ReplicaSetStatus {
        replicas,
        fully_labeled_replicas: some(labelled),
        ready_replicas: some(ready),
        available_replicas: some(available),
        terminating_replicas: set.status.as_ref().and_then(|status| status.terminating_replicas),
        observed_generation: set.metadata.generation,
        conditions: conditions(plan, set, failure, now),
    };
    plan.status(set, ReplicaSet { status: Some(status), ..set.clone() });
}

/// The conditions with ReplicaFailure set or gone.
fn conditions(
    plan: &mut Plan,
    set: &ReplicaSet,
    failure: Option<&str>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let current = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let failed = current.iter().find(|condition| condition.type_ == "ReplicaFailure");
    match (failure, failed) {
        (None, None) => {}
        (None, Some(_)) => {
            return Some(current.into_iter().filter(|c| c.type_ != "ReplicaFailure").collect::<Vec<_>>())
                .filter(|c| !c.is_empty());
        }
        (Some(message), Some(was)) if was.message.as_deref() == Some(message) => {}
        (Some(message), _) => {
            plan.event(set, EventType::Warning, "FailedCreate", format!("Error creating: {message}"));
            let mut next: Vec<_> = current.into_iter().filter(|c| c.type_ != "ReplicaFailure").collect();
            next.push(ReplicaSetCondition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                reason: Some("FailedCreate".into()),
                message: Some(message.to_owned()),
                last_transition_time: Some(Time(pods::whole_seconds(now))),
            });
            return Some(next);
        }
    }
    Some(current).filter(|conditions| !conditions.is_empty())
}

/// A count as the API writes it: zero is left out.
fn some(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{NOW, carry_out, make_ready, plan_of, put, wants_of, world};
    use super::*;
    use crate::{Change, Observation, Refusal, Want};

    fn set(w: &mut World, replicas: i32) {
        put(
            w,
            Kind::ReplicaSet,
            json!({"metadata": {"namespace": "a", "name": "r"}, "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
                "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}}}}),
        );
    }

    fn created(wants: &[Want]) -> Vec<Key> {
        let keys = wants.iter().filter_map(|want| match want {
            Want::Create(object) => Some(object.key()),
            _ => None,
        });
        keys.collect()
    }

    #[test]
    fn a_stale_world_never_names_more_pods_than_asked_for() {
        for replicas in 1..=5 {
            // However many of the pods made so far the World has heard of, in whatever order, what it names next
            // and what exists together are never more than asked for.
            let mut w = world(&[]);
            set(&mut w, replicas);
            let all: BTreeSet<Key> = created(&wants_of(&ROW, &w, "a/r")).into_iter().collect();
            assert_eq!(all.len(), usize::try_from(replicas).unwrap_or_default());
            for mask in 0..(1_u32 << replicas) {
                let mut stale = world(&[]);
                set(&mut stale, replicas);
                let seen: Vec<Want> = wants_of(&ROW, &w, "a/r")
                    .into_iter()
                    .filter(|want| matches!(want, Want::Create(_)))
                    .enumerate()
                    .filter(|(at, _)| mask & (1 << at) != 0)
                    .map(|(_, want)| want)
                    .collect();
                carry_out(&mut stale, &seen);
                let next = created(&wants_of(&ROW, &stale, "a/r"));
                assert!(next.iter().all(|key| all.contains(key)), "mask {mask:b}: {next:?} beyond {all:?}");
            }
        }
    }

    #[test]
    fn pods_that_fail_are_replaced_more_slowly_each_time() {
        let mut w = world(&[]);
        set(&mut w, 1);
        let key = Key::new("a", "r");
        let later = |seconds: u64| NOW + Duration::from_secs(seconds);
        for failures in 1..12_u32 {
            // However many failed, the next one is made, and fails at once.
            let plan = (ROW.plan)(&w, &key, later(1000));
            let made = created(&plan.wants);
            assert_eq!(made.len(), 1, "after {failures}");
            carry_out(
                &mut w,
                &plan.wants.into_iter().filter(|want| matches!(want, Want::Create(_))).collect::<Vec<_>>(),
            );
            let pod = w.pods.get(&made[0]).expect("a pod");
            let mut pod = serde_json::to_value(&*pod).expect("JSON");
            pod["status"] = json!({"phase": "Failed"});
            put(&mut w, Kind::Pod, pod);
            let pause = (1 << (failures - 1)).min(300);
            let soon = (ROW.plan)(&w, &key, later(pause - 1));
            assert!(created(&soon.wants).is_empty(), "after {failures}");
            assert_eq!(soon.recheck, Some(Duration::from_secs(1)));
            assert!(!created(&(ROW.plan)(&w, &key, later(pause)).wants).is_empty(), "after {failures}");
        }
        let calm = (ROW.plan)(&w, &key, later(601));
        assert!(!created(&calm.wants).is_empty(), "failures of long ago hold nothing up");
        let before = (ROW.plan)(&w, &key, NOW - Duration::from_secs(86_400));
        assert_eq!(before.recheck, Some(FAILED.1), "a clock that was set back makes no pause longer");
    }

    #[test]
    fn a_pause_is_as_long_as_it_is_wherever_the_wall_clock_was_set() {
        for stamp in ["2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"] {
            let mut w = world(&[]);
            set(&mut w, 1);
            plan_of(&ROW, &mut w, "a/r");
            let first = w.pods.keys().next().expect("a pod").clone();
            let mut pod = w.object(Kind::Pod, &first).expect("it exists").to_json();
            pod["metadata"]["creationTimestamp"] = stamp.into();
            pod["status"] = json!({"phase": "Failed", "startTime": NOW.to_string()});
            put(&mut w, Kind::Pod, pod);
            let made = |millis: u64| {
                !created(&(ROW.plan)(&w, &Key::new("a", "r"), NOW + Duration::from_millis(millis)).wants).is_empty()
            };
            assert_eq!([made(999), made(1000)], [false, true], "created {stamp}");
        }
    }

    #[test]
    fn growing_under_a_stale_world_names_the_same_pods_first() {
        let mut w = world(&[]);
        set(&mut w, 2);
        let two: BTreeSet<Key> = created(&wants_of(&ROW, &w, "a/r")).into_iter().collect();
        set(&mut w, 5);
        let five: BTreeSet<Key> = created(&wants_of(&ROW, &w, "a/r")).into_iter().collect();
        assert!(two.is_subset(&five) && five.len() == 5);
    }

    #[test]
    fn a_pod_that_goes_away_keeps_its_name_until_it_is_gone() {
        let mut w = world(&[]);
        set(&mut w, 1);
        plan_of(&ROW, &mut w, "a/r");
        let first = w.pods.keys().next().expect("a pod").clone();
        let mut value = w.object(Kind::Pod, &first).expect("it exists").to_json();
        value["metadata"]["deletionTimestamp"] = "2025-06-15T15:00:00Z".into();
        put(&mut w, Kind::Pod, value);
        let next = created(&wants_of(&ROW, &w, "a/r"));
        assert_eq!(next.len(), 1);
        assert_ne!(next[0], first);
    }

    #[test]
    fn what_is_not_ready_goes_first() {
        let mut w = world(&[]);
        set(&mut w, 3);
        plan_of(&ROW, &mut w, "a/r");
        let names: Vec<Key> = w.pods.keys().collect();
        make_ready(&mut w, &names[0]);
        make_ready(&mut w, &names[2]);
        set(&mut w, 2);
        let printed = plan_of(&ROW, &mut w, "a/r");
        assert!(printed.starts_with(&format!("delete Pod {} Background", names[1])), "{printed}");
        assert_eq!(w.pods.len(), 2);
    }

    #[test]
    fn status_counts_what_is_there_and_rests() {
        let mut w = world(&[]);
        set(&mut w, 2);
        plan_of(&ROW, &mut w, "a/r");
        let first = w.pods.keys().next().expect("a pod").clone();
        make_ready(&mut w, &first);
        plan_of(&ROW, &mut w, "a/r");
        let status = w.replica_sets.iter().next().and_then(|set| set.status.clone()).expect("a status");
        assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (2, Some(1), Some(1)));
        assert_eq!(plan_of(&ROW, &mut w, "a/r"), "");
    }

    #[test]
    fn a_refusal_is_reported_before_the_next_attempt_and_forgotten_after_success() {
        let mut w = world(&[]);
        set(&mut w, 1);
        let pod = created(&wants_of(&ROW, &w, "a/r"))[0].clone();
        let refusal = Refusal { reason: "Forbidden".into(), message: "exceeded quota".into(), at: NOW };
        let asker = (Kind::ReplicaSet, Key::new("a", "r"));
        w.observe(Observation::Refused { asker, object: (Kind::Pod, pod.clone()), refusal });
        let printed = plan_of(&ROW, &mut w, "a/r");
        assert_eq!(printed, format!("status ReplicaSet a/r\ncreate Pod {pod}\n"));
        let condition = |w: &World| w.replica_sets.iter().next().and_then(|set| set.status.clone()?.conditions);
        assert_eq!(condition(&w).expect("conditions")[0].message.as_deref(), Some("exceeded quota"));
        w.observe(Observation::Accepted { object: (Kind::Pod, pod) });
        plan_of(&ROW, &mut w, "a/r");
        assert_eq!(condition(&w), None);
    }

    #[test]
    fn strays_are_taken_in_and_misfits_let_go() {
        let mut w = world(&[]);
        set(&mut w, 1);
        put(&mut w, Kind::Pod, json!({"metadata": {"namespace": "a", "name": "stray", "labels": {"app": "x"}}}));
        assert_eq!(plan_of(&ROW, &mut w, "a/r"), "update Pod a/stray\n");
        let printed = plan_of(&ROW, &mut w, "a/r");
        assert_eq!(printed, "status ReplicaSet a/r\n", "it counts");
        let mut value = w.object(Kind::Pod, &Key::new("a", "stray")).expect("it exists").to_json();
        value["metadata"]["labels"] = json!({"app": "other"});
        put(&mut w, Kind::Pod, value);
        assert_eq!(plan_of(&ROW, &mut w, "a/r"), "update Pod a/stray\n");
        assert!(w.pods.iter().all(|pod| pod.controller().is_none()));
    }

    #[test]
    fn a_deleted_set_makes_nothing() {
        let mut w = world(&["ReplicaSet a/r deleting"]);
        assert!(created(&wants_of(&ROW, &w, "a/r")).is_empty());
        w.apply(Change::Gone(Kind::ReplicaSet, Key::new("a", "r")));
        assert!(wants_of(&ROW, &w, "a/r").is_empty());
    }
}
