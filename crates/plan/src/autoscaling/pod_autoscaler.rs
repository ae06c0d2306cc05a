//! PodAutoscaler → scale of the Deployment, ServerlessService and Metric. Only class `kpa`: any other is left to
//! whoever serves it.
//!
//! How many instances are wanted is decided by the autoscaler from what the gateway reports; here its decision
//! is bounded, carried out, and reported. Scaling to zero has two phases: first the PodAutoscaler turns inactive,
//! which puts the gateway in the path; the last instance goes only when the gateway has been there for a while.
//! With the queue in the gateway it is in the path always, so nobody has to ask it; with sidecars, the public
//! Endpoints must point at the gateway first.

use std::time::Duration;

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    autoscaling::PodAutoscaler,
    conditions::{FALSE, TRUE, UNKNOWN},
    duration,
    k8s_openapi::api::core::v1::ObjectReference,
    labels::serving as keys,
    networking::{ServerlessService, ServerlessServiceSpec},
};
use knoll_scale::{
    activators,
    bounds::Bounds,
    to_zero::{Activity, Inputs, PROXY_RECHECK, Step, step},
};

use super::{
    annotations::{Annotations, KPA},
    deciders, metric,
};
use crate::{
    Absence, Plan, QueuePlacement, Row, SystemConfig, Want, World, by_controller, by_same_key,
    children::{annotations, child_of, labels, not_owned, without},
    instances::ready_count,
    serving::revision::by_revision_label,
    status::Reporting,
};

const ACTIVE: &str = "Active";
const INITIALIZED: &str = "ScaleTargetInitialized";
const SKS_READY: &str = "SKSReady";
/// No decision has been made.
const UNKNOWN_SCALE: i32 = -1;
/// What the ServerlessService says when requests go to instances.
const SERVE: &str = "Serve";
/// What the ServerlessService says when requests go through the gateway.
const PROXY: &str = "Proxy";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "pod-autoscaler",
    of: Kind::PodAutoscaler,
    wakes: &[
        (Kind::ServerlessService, by_controller),
        (Kind::Metric, by_controller),
        (Kind::Pod, by_revision_label),
        (Kind::Deployment, by_revision_label),
        (Kind::Endpoints, by_same_key),
    ],
    configs: &[SystemConfig::Serving("config-autoscaler"), SystemConfig::Serving("config-deployment")],
    reads: &[Kind::ReplicaSet],
    absence: Absence::TurnsOff,
    plan,
};

/// What the scale is to be, and what was found on the way.
struct Outcome {
    /// Wanted instances to report; -1 while unknown.
    want: i32,
    ready: u32,
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let Some(autoscaler) = world.pod_autoscalers.get(key) else { return Plan::nothing() };
    let wishes = Annotations::of(autoscaler.as_ref(), &world.config.autoscaler);
    if autoscaler.is_deleting() || wishes.class() != KPA {
        return Plan::nothing();
    }
    let mut plan = Plan::nothing();
    let mut next = PodAutoscaler::clone(&autoscaler);
    next.conditions(now).initialize();
    if let Some(outcome) = reconcile(world, wishes, &mut next, &mut plan, now) {
        report(wishes, &mut next, &outcome, now);
    }
    plan.report(autoscaler.as_ref(), next);
    plan
}

fn reconcile(
    world: &World,
    wishes: Annotations<'_>,
    next: &mut PodAutoscaler,
    plan: &mut Plan,
    now: Timestamp,
) -> Option<Outcome> {
    let ready = ready_count(world, next.namespace(), revision_name(next));
    let sks = world.serverless_services.get(&next.key());
    let Some(sks) = sks.filter(|sks| !sks.status.private_service_name.is_empty()) else {
        // Until the private Service has a name there is nothing to measure.
        want_sks(world, next, plan, PROXY, activators::MIN_ACTIVATORS, now)?;
        next.conditions(now).mark_unknown(SKS_READY, "NotReady", "No Private Service Name");
        return Some(Outcome { want: UNKNOWN_SCALE, ready });
    };
    next.status.metrics_service_name = sks.status.private_service_name.clone();
    metric::reconcile(world, wishes, next, plan, now)?;
    let decision = deciders::decision(world, next, wishes);
    let want = scale(world, wishes, next, &sks, decision.desired, plan, now);

    let inactive = status_of(next, ACTIVE) == FALSE;
    let serve = want > 0 && decision.excess_burst_capacity >= 0 && !(want == UNKNOWN_SCALE && inactive);
    let total = deciders::target(world, next, wishes).total;
    let capacity = world.config.autoscaler.activator_capacity;
    let gateways = activators::number(ready, total, wishes.target_burst_capacity(), capacity);
    let settled = want_sks(world, next, plan, if serve { SERVE } else { PROXY }, gateways, now)?;
    next.status.service_name = sks.status.service_name.clone();
    if settled && sks.is_ready() {
        next.conditions(now).mark_true(SKS_READY);
    } else {
        let message = sks.condition("Ready").map(|ready| ready.message.clone()).unwrap_or_default();
        next.conditions(now).mark_unknown(SKS_READY, "NotReady", &message);
    }
    Some(Outcome { want, ready })
}

/// The Revision's name. The PodAutoscaler bears it too, but the label is what pods carry.
pub(super) fn revision_name(autoscaler: &PodAutoscaler) -> &str {
    autoscaler.label(keys::REVISION).unwrap_or(autoscaler.name())
}

fn status_of<'a>(autoscaler: &'a PodAutoscaler, type_: &str) -> &'a str {
    autoscaler.condition(type_).map_or(UNKNOWN, |condition| condition.status.as_str())
}

/// How long the `type_` condition has been as it is.
fn age(last: Option<&knoll_api::status::Condition>, now: Timestamp) -> Duration {
    let since = last.and_then(|condition| condition.last_transition_time.as_ref()).map_or(now, |time| time.0);
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
}

/// Makes the ServerlessService as it should be. `None` when its name is taken; else whether it is so already.
fn want_sks(
    world: &World,
    next: &mut PodAutoscaler,
    plan: &mut Plan,
    mode: &str,
    gateways: i32,
    now: Timestamp,
) -> Option<bool> {
    let target = &next.spec.scale_target_ref;
    let spec = ServerlessServiceSpec {
        mode: mode.to_owned(),
        object_ref: ObjectReference {
            api_version: Some(target.api_version.clone()),
            kind: Some(target.kind.clone()),
            name: Some(target.name.clone()),
            ..ObjectReference::default()
        },
        protocol_type: next.spec.protocol_type.clone(),
        num_activators: gateways,
    };
    let Some(existing) = world.serverless_services.get(&next.key()) else {
        let annotations = without(annotations(next), |key| key == "autoscaling.knative.dev/metric");
        let metadata = child_of(next, next.name(), labels(next), annotations);
        plan.create(ServerlessService { metadata, spec, ..ServerlessService::default() });
        return Some(false);
    };
    if !existing.is_controlled_by(next) {
        foreign(next, "ServerlessService", existing.name(), now);
        return None;
    }
    let settled = existing.spec == spec;
    plan.update(existing.as_ref(), ServerlessService { spec, ..ServerlessService::clone(&existing) });
    Some(settled)
}

/// Reports that the name of a child is taken.
pub(super) fn foreign(next: &mut PodAutoscaler, kind: &str, name: &str, now: Timestamp) {
    next.conditions(now).mark_false(ACTIVE, "NotOwned", &not_owned(kind, name));
}

/// Limits of the scale of `autoscaler`.
fn bounds(wishes: Annotations<'_>, autoscaler: &PodAutoscaler) -> Bounds {
    Bounds {
        min: wishes.min_scale(),
        max: wishes.max_scale(),
        initial: wishes.initial_scale(),
        initialized: status_of(autoscaler, INITIALIZED) == TRUE,
        unreachable: is_unreachable(autoscaler),
    }
}

fn is_unreachable(autoscaler: &PodAutoscaler) -> bool {
    autoscaler.spec.reachability == "Unreachable"
}

/// Carries out what the autoscaler decided, as far as it may be, and says what is wanted now.
fn scale(
    world: &World,
    wishes: Annotations<'_>,
    next: &PodAutoscaler,
    sks: &ServerlessService,
    desired: i32,
    plan: &mut Plan,
    now: Timestamp,
) -> i32 {
    if desired < 0 && status_of(next, ACTIVE) != UNKNOWN {
        return desired;
    }
    let mut limits = bounds(wishes, next);
    if let Some(left) = initial_scale_left(&limits, wishes.stable_window(), next, now) {
        plan.recheck_after(left);
        limits.initialized = false;
    }
    let bounded = limits.clamp(desired);
    if bounded > 0 {
        apply(world, next, bounded, plan);
        return bounded;
    }
    match step(&inputs(world, wishes, next, sks, now)) {
        Step::Apply(replicas) => {
            apply(world, next, replicas, plan);
            replicas
        }
        Step::TurnInactive => {
            plan.recheck_after(PROXY_RECHECK);
            0
        }
        Step::Wait { want, recheck } => {
            plan.recheck_after(recheck);
            // The rest of the idle time needs one instance, however many there were.
            if want > 0 {
                apply(world, next, want, plan);
            }
            want
        }
        Step::Probe => {
            plan.recheck_after(Duration::from_secs(1));
            0
        }
    }
}

/// How much longer an initial scale that was reached stays. Who asks for one expects the first requests to find it, and
/// what traffic there is, is known once it was watched for a stable window: before that there is no ground for fewer.
fn initial_scale_left(
    limits: &Bounds,
    stable_window: Duration,
    autoscaler: &PodAutoscaler,
    now: Timestamp,
) -> Option<Duration> {
    let reached = limits.initial > 1 && limits.initialized;
    let since = reached.then(|| age(autoscaler.condition(INITIALIZED), now))?;
    stable_window.checked_sub(since).filter(|left| !left.is_zero())
}

fn inputs(
    world: &World,
    wishes: Annotations<'_>,
    next: &PodAutoscaler,
    sks: &ServerlessService,
    now: Timestamp,
) -> Inputs {
    let config = &world.config;
    let active = next.condition(ACTIVE);
    let since = age(active, now);
    let deadline = next.annotation(keys::PROGRESS_DEADLINE).and_then(|text| duration::parse(text).ok());
    let proxied = sks.condition("ActivatorEndpointsPopulated").filter(|condition| condition.status == TRUE);
    Inputs {
        enabled: config.autoscaler.enable_scale_to_zero,
        activity: match status_of(next, ACTIVE) {
            TRUE => Activity::True(since),
            FALSE => Activity::False(since),
            _ => Activity::Unknown(since),
        },
        progress_deadline: deadline.map_or(config.deployment.progress_deadline, duration::to_std),
        stable_window: wishes.stable_window(),
        grace: config.autoscaler.scale_to_zero_grace_period,
        retention: wishes.retention(),
        unreachable: is_unreachable(next),
        proxied_for: proxied.map(|condition| age(Some(condition), now)),
        gateway_answers: gateway_answers(world, wishes, next),
    }
}

/// Whether requests for the revision are sure to reach the gateway.
fn gateway_answers(world: &World, wishes: Annotations<'_>, next: &PodAutoscaler) -> bool {
    #[expect(clippy::float_cmp, reason = "-1 is a name, not a measurement")]
    let always = wishes.target_burst_capacity() == -1.0;
    if always || world.settings.queue_placement == QueuePlacement::Gateway {
        return true;
    }
    let gateway = world.settings.gateway.address.to_string();
    let public = world.endpoints.get(&next.key().sibling(&next.status.service_name));
    let addresses = public.iter().flat_map(|endpoints| endpoints.subsets.iter().flatten());
    addresses.flat_map(|subset| subset.addresses.iter().flatten()).any(|address| address.ip == gateway)
}

fn apply(world: &World, next: &PodAutoscaler, replicas: i32, plan: &mut Plan) {
    let target = &next.spec.scale_target_ref;
    let key = next.key().sibling(&target.name);
    let Some(kind) = Kind::from_api(&target.api_version, &target.kind) else { return };
    let Some(current) = current_scale(world, kind, &key) else { return };
    if current != replicas {
        plan.wants.insert(0, Want::Scale { kind, key, replicas });
    }
}

fn current_scale(world: &World, kind: Kind, key: &Key) -> Option<i32> {
    match kind {
        Kind::Deployment => Some(world.deployments.get(key)?.spec.as_ref()?.replicas.unwrap_or(1)),
        Kind::ReplicaSet => Some(world.replica_sets.get(key)?.spec.as_ref()?.replicas.unwrap_or(1)),
        _ => None,
    }
}

/// Writes scale and activity into the status.
fn report(wishes: Annotations<'_>, next: &mut PodAutoscaler, outcome: &Outcome, now: Timestamp) {
    let Outcome { want, ready } = *outcome;
    let ready = i32::try_from(ready).unwrap_or(i32::MAX);
    next.status.actual_scale = Some(ready);
    // An autoscaler that has just started knows nothing yet; what the last one wanted stands.
    let known = next.status.desired_scale.is_some_and(|scale| scale >= 0);
    if want != UNKNOWN_SCALE || !known {
        next.status.desired_scale = Some(want);
    }
    let threshold = bounds(wishes, next).active_threshold();
    if ready >= threshold && !next.status.service_name.is_empty() {
        next.conditions(now).mark_true(INITIALIZED);
    }
    activity(next, want, ready, threshold, now);
}

/// The next `Active` from what is wanted, what is there and what it takes:
///
/// | want | ready      | threshold | was        | becomes    |
/// |------|------------|-----------|------------|------------|
/// | 0    | any        | any       | any        | inactive   |
/// | any  | any        | 0         | any        | inactive   |
/// | > 0  | < threshold| > 0       | any        | activating |
/// | > 0  | ≥ threshold| > 0       | any        | active     |
/// | -1   | < threshold| > 0       | inactive   | inactive   |
/// | -1   | < threshold| > 0       | not so     | activating |
/// | -1   | ≥ threshold| > 0       | inactive   | inactive   |
/// | -1   | ≥ threshold| > 0       | not so     | active     |
fn activity(next: &mut PodAutoscaler, want: i32, ready: i32, threshold: i32, now: Timestamp) {
    let was = status_of(next, ACTIVE).to_owned();
    let mut conditions = next.conditions(now);
    if want == 0 || threshold == 0 {
        // Zero while activating means that activation was given up.
        if was == UNKNOWN && threshold > 0 {
            conditions.mark_false(ACTIVE, "TimedOut", "The target could not be activated.");
        } else {
            conditions.mark_false(ACTIVE, "NoTraffic", "The target is not receiving traffic.");
        }
    } else if want < 0 && was == FALSE {
        if ready < threshold {
            conditions.mark_false(ACTIVE, "NoTraffic", "The target is not receiving traffic.");
        }
    } else if ready < threshold {
        let text = "Requests to the target are being buffered as resources are provisioned.";
        conditions.mark_unknown(ACTIVE, "Queued", text);
    } else {
        conditions.mark_true(ACTIVE);
    }
}

#[cfg(test)]
mod tests;
