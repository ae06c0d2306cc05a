//! Revision → PodAutoscaler, and what the PodAutoscaler reports back.

use knoll_api::{
    Resource, Timestamp,
    autoscaling::{PodAutoscaler, PodAutoscalerSpec, ScaleTargetRef},
    conditions::{FALSE, READY, TRUE},
    k8s_openapi::api::apps::v1::Deployment,
    labels::serving as keys,
    serving::Revision,
};

use super::{
    ACTIVE, CONTAINER_HEALTHY, DEPLOYING, RESOURCES_AVAILABLE, deployment_name, not_owned,
    pods::{infrastructure_labels, is_h2c},
};
use crate::{
    Plan, World,
    children::{Map, annotations, child_of, some, without},
    status::Reporting,
};

/// Annotations of the autoscaler.
const AUTOSCALING: &str = "autoscaling.knative.dev";
/// Annotations that admission fills in on the PodAutoscaler, so their absence on the Revision means nothing.
const DEFAULTED: [&str; 2] = ["autoscaling.knative.dev/class", "autoscaling.knative.dev/metric"];

/// Makes the PodAutoscaler of `next` as it should be, and reports what it says.
pub(super) fn reconcile(world: &World, next: &mut Revision, plan: &mut Plan, now: Timestamp) {
    let deployment = world.deployments.get(&next.key().sibling(deployment_name(next)));
    let Some(existing) = world.pod_autoscalers.get(&next.key()) else {
        follow(next, &PodAutoscaler::default(), now);
        plan.create(make(next, deployment.as_deref()));
        return;
    };
    if !existing.is_controlled_by(next) {
        not_owned(next, "PodAutoscaler", existing.name(), now);
        return;
    }
    follow(next, &existing, now);
    let template = make(next, deployment.as_deref());
    let mut wanted = PodAutoscaler::clone(&existing);
    wanted.metadata.annotations = some(synced(annotations(existing.as_ref()), annotations(&template)));
    wanted.spec = template.spec;
    plan.update(existing.as_ref(), wanted);
}

/// Annotations of the PodAutoscaler: those of the Revision decide about every autoscaling key.
fn synced(existing: Map, wanted: Map) -> Map {
    let stale = |key: &str| key.starts_with(AUTOSCALING) && !DEFAULTED.contains(&key) && !wanted.contains_key(key);
    let mut synced = without(existing, stale);
    synced.extend(wanted.clone());
    synced
}

fn make(revision: &Revision, deployment: Option<&Deployment>) -> PodAutoscaler {
    let dropped = [keys::LAST_PINNED, keys::NO_GC, keys::ROUTING_STATE_MODIFIED, keys::ROUTES];
    let annotations = without(annotations(revision), |key| dropped.contains(&key));
    PodAutoscaler {
        metadata: child_of(revision, revision.name(), infrastructure_labels(revision), annotations),
        spec: PodAutoscalerSpec {
            container_concurrency: revision.spec.container_concurrency.unwrap_or_default(),
            scale_target_ref: ScaleTargetRef {
                api_version: "apps/v1".into(),
                kind: "Deployment".into(),
                name: deployment_name(revision),
            },
            reachability: reachability(revision, deployment).to_owned(),
            protocol_type: if is_h2c(revision) { "h2c" } else { "http1" }.to_owned(),
        },
        ..PodAutoscaler::default()
    }
}

/// A Revision that cannot run is given up like one that no Route leads to.
fn reachability(revision: &Revision, deployment: Option<&Deployment>) -> &'static str {
    let failed = is_false(revision, RESOURCES_AVAILABLE) || is_false(revision, CONTAINER_HEALTHY);
    let idle = |deployment: &Deployment| {
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
        replicas > 0 && ready == 0
    };
    match revision.label(keys::ROUTING_STATE) {
        _ if failed && deployment.is_some_and(idle) => "Unreachable",
        Some("active") => "Reachable",
        Some("reserve") => "Unreachable",
        _ => "",
    }
}

fn is_false(revision: &Revision, type_: &str) -> bool {
    revision.condition(type_).is_some_and(|condition| condition.status == FALSE)
}

/// Takes over what the PodAutoscaler reports. Being scaled to zero never takes readiness away.
fn follow(next: &mut Revision, autoscaler: &PodAutoscaler, now: Timestamp) {
    let broken = is_false(next, RESOURCES_AVAILABLE) || is_false(next, CONTAINER_HEALTHY);
    let status = &autoscaler.status;
    next.status.actual_replicas = status.actual_scale.filter(|scale| *scale >= 0);
    next.status.desired_replicas = status.desired_scale.filter(|scale| *scale >= 0);
    let Some(ready) = autoscaler.condition(READY) else {
        next.conditions(now).mark_unknown(ACTIVE, DEPLOYING, "");
        if !broken {
            next.conditions(now).mark_unknown(RESOURCES_AVAILABLE, DEPLOYING, "");
        }
        return;
    };
    let initialized = autoscaler.condition("ScaleTargetInitialized").is_some_and(|c| c.status == TRUE);
    if initialized && !broken {
        next.conditions(now).mark_true(RESOURCES_AVAILABLE).mark_true(CONTAINER_HEALTHY);
    }
    let available = next.condition(RESOURCES_AVAILABLE).is_some_and(|c| c.status == TRUE);
    if available && (status.service_name.is_empty() || !initialized) {
        next.conditions(now).mark_unknown(RESOURCES_AVAILABLE, DEPLOYING, "");
    }
    match ready.status.as_str() {
        TRUE => {
            next.conditions(now).mark_true(ACTIVE);
        }
        FALSE => {
            // Scaled to zero without ever having come up: activation was given up.
            if !initialized && !broken && !status.service_name.is_empty() {
                let text = "Initial scale was never achieved";
                next.conditions(now).mark_false(RESOURCES_AVAILABLE, "ProgressDeadlineExceeded", text);
            }
            next.conditions(now).mark_false(ACTIVE, &ready.reason, &ready.message);
        }
        _ => {
            next.conditions(now).mark_unknown(ACTIVE, &ready.reason, &ready.message);
        }
    }
}
