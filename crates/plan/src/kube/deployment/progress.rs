//! What a Deployment's status says.

use std::time::Duration;

use knoll_api::{
    Resource, Timestamp,
    k8s_openapi::{
        api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSetStatus},
        apimachinery::pkg::apis::meta::v1::Time,
    },
};

use super::{
    rollout,
    sets::{Set, Sets},
    spec, wanted,
};
use crate::Plan;

/// Seconds that stand for "no deadline".
const NO_DEADLINE: i32 = i32::MAX;

const PROGRESSING: &str = "Progressing";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// Wants the status that the sets amount to.
pub(super) fn report(plan: &mut Plan, deployment: &Deployment, sets: &Sets, now: Timestamp) {
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = counts(deployment, &before, sets);
    let mut conditions = Conditions::new(before.conditions.clone().unwrap_or_default(), now);
    availability(deployment, &status, &mut conditions);
    match deadline(deployment) {
        Some(deadline) => progress(plan, deployment, &before, &status, sets, deadline, &mut conditions),
        None => conditions.remove(PROGRESSING),
    }
    match failure(sets) {
        Some(condition) => conditions.set("ReplicaFailure", "True", &condition.0, condition.1),
        None => conditions.remove("ReplicaFailure"),
    }
    status.conditions = Some(conditions.list).filter(|list| !list.is_empty());
    plan.status(deployment, Deployment { status: Some(status), ..deployment.clone() });
}

/// Counts a collision of template hashes, which changes the next hash.
pub(super) fn count_collision(plan: &mut Plan, deployment: &Deployment) {
    let mut status = deployment.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
    plan.status(deployment, Deployment { status: Some(status), ..deployment.clone() });
}

/// Whether the rollout it last reported is over, and all that was wanted is there.
pub(super) fn is_complete(deployment: &Deployment) -> bool {
    deployment.status.as_ref().is_some_and(|status| all_there(deployment, status))
}

fn all_there(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = some(wanted(deployment));
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// A count as the API writes it: zero is left out.
fn some(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

fn counts(deployment: &Deployment, before: &DeploymentStatus, sets: &Sets) -> DeploymentStatus {
    let status = |set: &Set| set.after.status.clone().unwrap_or_default();
    let sum = |of: fn(&ReplicaSetStatus) -> i32| sets.sum(|set| of(&status(set)));
    let replicas = sum(|status| status.replicas);
    let available = sum(|status| status.available_replicas.unwrap_or_default());
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(replicas),
        updated_replicas: some(sets.new.as_ref().map_or(0, |new| status(new).replicas)),
        ready_replicas: some(sum(|status| status.ready_replicas.unwrap_or_default())),
        available_replicas: some(available),
        unavailable_replicas: some((sets.sum(Set::replicas) - available).max(0)),
        terminating_replicas: before.terminating_replicas,
        collision_count: before.collision_count,
        conditions: None,
    }
}

/// Conditions being written.
struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    /// Begins with these. What is said to be still to come, for the clock was set back since, counts as of now: a
    /// deadline would not pass before that time.
    fn new(mut list: Vec<DeploymentCondition>, now: Timestamp) -> Conditions {
        let times = list.iter_mut().flat_map(|c| [&mut c.last_update_time, &mut c.last_transition_time]);
        times.flatten().for_each(|time| time.0 = time.0.min(now));
        Conditions { list, now }
    }

    fn get(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == type_)
    }

    fn remove(&mut self, type_: &str) {
        self.list.retain(|condition| condition.type_ != type_);
    }

    /// Sets a condition; one that already has this status and reason stays as it is.
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: String) {
        if self.get(type_).is_some_and(|was| was.status == status && was.reason.as_deref() == Some(reason)) {
            return;
        }
        self.renew(type_, status, reason, message);
    }

    /// Sets a condition and when it was last updated.
    fn renew(&mut self, type_: &str, status: &str, reason: &str, message: String) {
        let now = Some(Time(self.now));
        let was = self.get(type_).filter(|was| was.status == status);
        let transition = was.map_or(now.clone(), |was| was.last_transition_time.clone());
        self.remove(type_);
        self.list.push(DeploymentCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: transition,
            last_update_time: now,
        });
    }
}

fn availability(deployment: &Deployment, status: &DeploymentStatus, conditions: &mut Conditions) {
    let enough = wanted(deployment) - rollout::unavailable(deployment);
    if status.available_replicas.unwrap_or_default() >= enough {
        let message = "Deployment has minimum availability.";
        conditions.set("Available", "True", "MinimumReplicasAvailable", message.into());
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set("Available", "False", "MinimumReplicasUnavailable", message.into());
    }
}

/// How long a rollout may stand still; `None` is for ever.
fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = spec(deployment).progress_deadline_seconds.unwrap_or(600);
    (seconds != NO_DEADLINE).then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

fn progress(
    plan: &mut Plan,
    deployment: &Deployment,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    sets: &Sets,
    deadline: Duration,
    conditions: &mut Conditions,
) {
    let set = sets.new.as_ref().map_or_else(String::new, |new| new.name().to_owned());
    let subject =
        if set.is_empty() { format!("Deployment \"{}\"", deployment.name()) } else { format!("ReplicaSet \"{set}\"") };
    if paused(deployment, conditions) {
        return;
    }
    if sets.is_made() {
        let message = format!("Created new replica set \"{set}\"");
        conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", message);
    } else if conditions.get(PROGRESSING).is_none() && sets.new.is_some() {
        conditions.set(PROGRESSING, "True", "FoundNewReplicaSet", format!("Found new replica set \"{set}\""));
    }
    let reason = |conditions: &Conditions| conditions.get(PROGRESSING).and_then(|c| c.reason.clone());
    let was_complete = reason(conditions).as_deref() == Some(COMPLETE);
    if status.replicas == status.updated_replicas && was_complete {
        return;
    }
    if all_there(deployment, status) {
        conditions.set(PROGRESSING, "True", COMPLETE, format!("{subject} has successfully progressed."));
        return;
    }
    if moved(before, status) {
        conditions.renew(PROGRESSING, "True", "ReplicaSetUpdated", format!("{subject} is progressing."));
    }
    let Some(current) = conditions.get(PROGRESSING) else { return };
    if matches!(current.reason.as_deref(), Some(COMPLETE | TIMED_OUT)) {
        return;
    }
    let since = current.last_update_time.as_ref().map_or(conditions.now, |time| time.0);
    let elapsed = Duration::try_from(conditions.now.duration_since(since)).unwrap_or_default();
    if elapsed > deadline {
        conditions.set(PROGRESSING, "False", TIMED_OUT, format!("{subject} has timed out progressing."));
    } else {
        plan.recheck_after(deadline - elapsed + Duration::from_secs(1));
    }
}

/// Says that a paused Deployment waits, or that it goes on. Whether it waits.
fn paused(deployment: &Deployment, conditions: &mut Conditions) -> bool {
    let paused = spec(deployment).paused == Some(true);
    let was = conditions.get(PROGRESSING).and_then(|c| c.reason.clone());
    let was = was.as_deref();
    if paused && was != Some(TIMED_OUT) {
        conditions.set(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused".into());
    } else if was == Some("DeploymentPaused") {
        conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into());
    }
    paused
}

/// Whether the rollout got further than it last reported.
fn moved(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or_default();
    let old = |status: &DeploymentStatus| n(status.replicas) - n(status.updated_replicas);
    n(after.updated_replicas) > n(before.updated_replicas)
        || old(after) < old(before)
        || n(after.ready_replicas) > n(before.ready_replicas)
        || n(after.available_replicas) > n(before.available_replicas)
}

/// Reason and message of the newest set that cannot make its pods.
fn failure(sets: &Sets) -> Option<(String, String)> {
    let conditions = |set: &Set| set.after.status.as_ref().and_then(|status| status.conditions.clone());
    sets.all().find_map(|set| {
        let found = conditions(set)?.into_iter().find(|condition| condition.type_ == "ReplicaFailure")?;
        Some((found.reason.unwrap_or_default(), found.message.unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_counts_from_now_where_its_condition_is_of_the_future() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut conditions = Conditions::new(Vec::new(), at(86_400));
        conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", String::new());
        let conditions = Conditions::new(conditions.list, at(7));
        let progressing = conditions.get(PROGRESSING).unwrap();
        assert_eq!(progressing.last_update_time.as_ref().unwrap().0, at(7));
        assert_eq!(progressing.last_transition_time.as_ref().unwrap().0, at(7));
    }
}
