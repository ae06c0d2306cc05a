//! What a Deployment and its pods say about a Revision.

use knoll_api::{
    Timestamp,
    conditions::{FALSE, LivingSet, TRUE},
    k8s_openapi::api::{
        apps::v1::{Deployment, DeploymentStatus},
        core::v1::{ContainerStatus, Pod},
    },
    labels::serving as keys,
    serving::Revision,
    status::Condition,
};

use super::{CONTAINER_HEALTHY, RESOURCES_AVAILABLE};
use crate::{World, children, status::Reporting};

/// Name of the container that Knative adds; it says nothing about the user's code.
pub(super) const QUEUE_CONTAINER: &str = "queue-proxy";

const PROGRESSING: &str = "Progressing";
const REPLICA_SET_READY: &str = "ReplicaSetReady";
const DEPLOYMENT_SET: LivingSet = LivingSet::new("Ready", &[PROGRESSING, REPLICA_SET_READY]);

/// Takes over what the Deployment reports, and what keeps its pods from starting.
pub(super) fn follow(world: &World, next: &mut Revision, deployment: &Deployment, now: Timestamp) {
    let status = deployment.status.clone().unwrap_or_default();
    let ready = summary(&status, now);
    match ready.status.as_str() {
        TRUE => next.conditions(now).mark_true(RESOURCES_AVAILABLE),
        FALSE => next.conditions(now).mark_false(RESOURCES_AVAILABLE, &ready.reason, &ready.message),
        _ => next.conditions(now).mark_unknown(RESOURCES_AVAILABLE, &ready.reason, &ready.message),
    };
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    if replicas > 0 && status.available_replicas.unwrap_or_default() == 0 {
        let namespace = children::namespace(next);
        let uid = next.metadata.uid.clone().unwrap_or_default();
        let pods = world.pods.labelled(&namespace, keys::REVISION_UID, &uid);
        // One pod stands for all: they fail alike.
        if let Some(pod) = pods.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none()) {
            follow_pod(world, next, &pod, &status, now);
        }
    }
    if status.ready_replicas.unwrap_or_default() > 0 {
        next.conditions(now).mark_true(CONTAINER_HEALTHY);
    }
}

/// One condition for a Deployment: it progresses, and its ReplicaSet can make pods. Whether it is available now
/// does not count, for at zero it never is.
fn summary(status: &DeploymentStatus, now: Timestamp) -> Condition {
    let mut conditions = Vec::new();
    let mut set = DEPLOYMENT_SET.manage(&mut conditions, now);
    set.initialize().mark_true(REPLICA_SET_READY).mark_unknown(PROGRESSING, "Deploying", "");
    for condition in status.conditions.iter().flatten() {
        let reason = condition.reason.as_deref().unwrap_or_default();
        let message = condition.message.as_deref().unwrap_or_default();
        match (condition.type_.as_str(), condition.status.as_str()) {
            ("Progressing", TRUE) => set.mark_true(PROGRESSING),
            ("Progressing", FALSE) => set.mark_false(PROGRESSING, reason, message),
            ("Progressing", _) => set.mark_unknown(PROGRESSING, reason, message),
            ("ReplicaFailure", TRUE) => set.mark_false(REPLICA_SET_READY, reason, message),
            ("ReplicaFailure", FALSE) => set.mark_true(REPLICA_SET_READY),
            ("ReplicaFailure", _) => set.mark_unknown(REPLICA_SET_READY, reason, message),
            _ => continue,
        };
    }
    set.happy().cloned().unwrap_or_default()
}

fn follow_pod(world: &World, next: &mut Revision, pod: &Pod, deployment: &DeploymentStatus, now: Timestamp) {
    let Some(status) = &pod.status else { return };
    if !world.config.deployment.pod_is_always_schedulable {
        let unscheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == FALSE);
        if let Some(condition) = unscheduled {
            let reason = condition.reason.as_deref().unwrap_or_default();
            let message = condition.message.as_deref().unwrap_or_default();
            next.conditions(now).mark_false(RESOURCES_AVAILABLE, reason, message);
        }
    }
    let timed_out = has_timed_out(deployment);
    let users = status.container_statuses.iter().flatten().filter(|status| status.name != QUEUE_CONTAINER);
    for container in users {
        if follow_container(next, container, timed_out, now) {
            return;
        }
    }
    if timed_out {
        blame_probes(next, pod, now);
    }
}

/// A Deployment that timed out says only that; what its pod's probes were told says why.
fn blame_probes(next: &mut Revision, pod: &Pod, now: Timestamp) {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let unready = conditions.into_iter().find(|c| c.type_ == "ContainersReady" && c.status == FALSE);
    let Some(why) = unready.and_then(|condition| condition.message.as_deref()) else { return };
    let Some(told) = next.condition(RESOURCES_AVAILABLE).filter(|condition| condition.status == FALSE) else { return };
    let (reason, message) = (told.reason.clone(), format!("{} {why}", told.message));
    next.conditions(now).mark_false(RESOURCES_AVAILABLE, &reason, &message);
}

/// Takes over what one container reports; returns whether it reports anything.
fn follow_container(next: &mut Revision, container: &ContainerStatus, timed_out: bool, now: Timestamp) -> bool {
    if let Some(ended) = container.last_state.as_ref().and_then(|state| state.terminated.as_ref()) {
        let said = ended.message.as_deref().unwrap_or_default();
        let said = if ended.exit_code == 0 && said.is_empty() { "container exited with no error" } else { said };
        let reason = format!("ExitCode{}", ended.exit_code);
        next.conditions(now).mark_false(CONTAINER_HEALTHY, &reason, &format!("Container failed with: {said}"));
        return true;
    }
    // Pulling and waiting are normal for as long as the Deployment is given.
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref()).filter(|_| timed_out);
    let Some(waiting) = waiting else { return false };
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let message = waiting.message.as_deref().unwrap_or_default();
    next.conditions(now).mark_false(RESOURCES_AVAILABLE, reason, message);
    true
}

fn has_timed_out(status: &DeploymentStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "Progressing"
            && condition.status == FALSE
            && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
    })
}
