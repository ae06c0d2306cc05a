//! Pods that no Job is going to count any more lose the finalizer that holds them: those whose Job is gone or has ended,
//! and those that nothing controls.

use knoll_api::{Key, Kind, Object, Resource, Timestamp, k8s_openapi::api::core::v1::Pod};

use super::{attempt, conditions};
use crate::{Absence, Plan, Row, World};

/// See the module.
pub(in super::super) const ROW: Row = Row {
    name: "job-pod-release",
    of: Kind::Pod,
    wakes: &[(Kind::Job, pods_of_ended)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// The pods of a Job that is gone or has ended.
fn pods_of_ended(world: &World, object: &Object, _of: Kind) -> Vec<Key> {
    let (key, uid) = (object.key(), object.meta().uid.as_deref().unwrap_or_default());
    let counts = world.jobs.get(&key).is_some_and(|job| job.uid() == uid && conditions::end(&job).is_none());
    if counts { Vec::new() } else { world.leading_to(Kind::Pod, Kind::Job, &key) }
}

fn plan(world: &World, key: &Key, _now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(pod) = world.pods.get(key) else { return plan };
    if attempt::is_uncounted(&pod) && !is_counted_by_somebody(world, &pod) {
        plan.update(pod.as_ref(), attempt::counted(&pod));
    }
    plan
}

/// Whether a Job is going to count it, or another controller looks after that.
fn is_counted_by_somebody(world: &World, pod: &Pod) -> bool {
    let Some(owner) = pod.controller() else { return false };
    if Kind::from_api(&owner.api_version, &owner.kind) != Some(Kind::Job) {
        return true;
    }
    let job = world.jobs.get(&pod.key().sibling(owner.name.clone())).filter(|job| job.uid() == owner.uid);
    job.is_some_and(|job| attempt::is_managed_elsewhere(&job) || conditions::end(&job).is_none())
}
