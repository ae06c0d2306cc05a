//! Deployment → ReplicaSets: one for each template it had, the newest with all replicas; how replicas move from
//! one to the next is the strategy's.

mod progress;
mod rollout;
mod sets;

use std::sync::LazyLock;

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec},
};

use self::sets::Sets;
use crate::{Absence, Plan, Row, World, by_controller, terms::selectors_of};

/// Which revision of the Deployment a ReplicaSet is, and which one the Deployment is at.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Replicas of the Deployment when the ReplicaSet was last scaled.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Replicas and surge of the Deployment when the ReplicaSet was last scaled.
const MOST: &str = "deployment.kubernetes.io/max-replicas";
/// Label: which template.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// See the module.
pub(super) const ROW: Row = Row {
    name: "deployment",
    of: Kind::Deployment,
    wakes: &[(Kind::ReplicaSet, by_controller), (Kind::ReplicaSet, by_selector), (Kind::Pod, by_grandparent)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// Deployments that could adopt a ReplicaSet without a controller.
fn by_selector(world: &World, object: &Object, _of: Kind) -> Vec<Key> {
    let meta = object.meta();
    if meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true)) {
        return Vec::new();
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let all = selectors_of(namespace, meta.labels.as_ref()).flat_map(|term| world.deployments.find(term));
    let picking = all.filter(|one| {
        one.namespace() == namespace && super::selector::picks(&spec(one).selector, meta.labels.as_ref())
    });
    picking.map(|one| one.key()).collect()
}

/// A pod that went may be the one that a `Recreate` waits for.
fn by_grandparent(world: &World, object: &Object, _of: Kind) -> Vec<Key> {
    let Object::Pod(pod) = object else { return Vec::new() };
    if super::pods::is_active(pod) && world.holds(Kind::Pod, &pod.key(), pod.uid()) {
        return Vec::new();
    }
    let Some(owner) = pod.controller().filter(|owner| owner.kind == Kind::ReplicaSet.kind()) else { return Vec::new() };
    let Some(set) = world.replica_sets.get(&Key::new(pod.namespace(), owner.name.clone())) else { return Vec::new() };
    let owner = set.controller().filter(|owner| owner.kind == Kind::Deployment.kind());
    let key = owner.map(|owner| Key::new(set.namespace(), owner.name.clone()));
    let recreates = |key: &Key| world.deployments.get(key).is_some_and(|deployment| is_recreate(&deployment));
    key.filter(recreates).into_iter().collect()
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = spec(deployment).strategy.as_ref();
    strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"))
}

/// What is wanted of a Deployment; nothing when it does not say.
fn spec(deployment: &Deployment) -> &DeploymentSpec {
    static EMPTY: LazyLock<DeploymentSpec> = LazyLock::new(DeploymentSpec::default);
    deployment.spec.as_ref().unwrap_or(&EMPTY)
}

/// Replicas asked for.
fn wanted(deployment: &Deployment) -> i32 {
    spec(deployment).replicas.unwrap_or(1).max(0)
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(deployment) = world.deployments.get(key) else { return plan };
    let deployment = deployment.as_ref();
    let now = super::pods::whole_seconds(now);
    if deployment.is_deleting() {
        let sets = Sets::observed(world, deployment);
        progress::report(&mut plan, deployment, &sets, now);
        return plan;
    }
    if sets::adopt(&mut plan, world, deployment) {
        return plan;
    }
    let mut sets = Sets::observed(world, deployment);
    if sets.collides {
        progress::count_collision(&mut plan, deployment);
        return plan;
    }
    let paused = spec(deployment).paused == Some(true);
    if !paused {
        sets.stamp(deployment);
    }
    if paused || sets.is_scaling(deployment) {
        rollout::scale(deployment, &mut sets);
    } else if is_recreate(deployment) {
        rollout::recreate(world, deployment, &mut sets);
    } else {
        rollout::roll(deployment, &mut sets);
    }
    sets.changes(&mut plan, deployment);
    sets::annotate(&mut plan, deployment, &sets);
    progress::report(&mut plan, deployment, &sets, now);
    if !paused && progress::is_complete(deployment) {
        sets.forget_history(&mut plan, deployment);
    }
    plan
}

#[cfg(test)]
mod tests;
