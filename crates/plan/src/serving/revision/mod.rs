//! Revision → Deployment, PodAutoscaler and cached Images. Reports whether what it stands for can serve.
//!
//! A Revision runs only what it resolved once: tags become digests before the Deployment is made. How many
//! instances there are is none of its business: `pod_autoscaler` scales.

mod deployment;
mod digests;
mod health;
mod image;
mod pod_autoscaler;
mod pods;
mod probes;
mod queue;

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    conditions::{READY, TRUE},
    labels::serving as keys,
    serving::Revision,
};

pub(crate) use deployment::name as deployment_name;
pub(crate) use digests::is_resolved;
pub(crate) use pods::{USER_PORT_NAME, is_h2c, user_port};
pub(crate) use queue::{H2C_PORT, HTTP1_PORT, HTTPS_PORT};

use crate::{Absence, EventType, Plan, Row, SystemConfig, World, by_controller, status::Reporting};

const RESOURCES_AVAILABLE: &str = "ResourcesAvailable";
const CONTAINER_HEALTHY: &str = "ContainerHealthy";
const ACTIVE: &str = "Active";
const DEPLOYING: &str = "Deploying";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "revision",
    of: Kind::Revision,
    wakes: &[
        (Kind::Deployment, by_controller),
        (Kind::PodAutoscaler, by_controller),
        (Kind::Image, by_controller),
        (Kind::Pod, by_revision_label),
    ],
    configs: &[
        SystemConfig::Serving("config-deployment"),
        SystemConfig::Serving("config-defaults"),
        SystemConfig::Serving("config-features"),
        SystemConfig::Serving("config-observability"),
        SystemConfig::Serving("config-autoscaler"),
    ],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// The Revision that the object is labelled with.
pub(crate) fn by_revision_label(_: &World, object: &Object, _: Kind) -> Vec<Key> {
    let meta = object.meta();
    let revision = meta.labels.as_ref().and_then(|labels| labels.get(keys::REVISION));
    revision.map(|name| Key::new(meta.namespace.clone().unwrap_or_default(), name)).into_iter().collect()
}

/// The port of the queue container that takes requests.
pub(crate) fn queue_port(revision: &Revision) -> i32 {
    if is_h2c(revision) { H2C_PORT } else { HTTP1_PORT }
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let Some(revision) = world.revisions.get(key) else { return Plan::nothing() };
    if revision.is_deleting() {
        return Plan::nothing();
    }
    let mut plan = Plan::nothing();
    let mut next = Revision::clone(&revision);
    next.conditions(now).initialize();
    next.status.log_url = world.config.observability.revision_url_template.replace("${REVISION_UID}", revision.uid());
    reconcile(world, &mut next, &mut plan, now);
    if next.condition(READY).is_some_and(|ready| ready.status == TRUE)
        && revision.condition(READY).is_none_or(|ready| ready.status != TRUE)
    {
        let text = "Revision becomes ready upon all resources being ready";
        plan.event(revision.as_ref(), EventType::Normal, "RevisionReady", text);
    }
    plan.report(revision.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut Revision, plan: &mut Plan, now: Timestamp) {
    if digests::resolve(world, next, plan, now).is_break() {
        return;
    }
    if deployment::reconcile(world, next, plan, now).is_break() {
        return;
    }
    image::reconcile(world, next, plan);
    pod_autoscaler::reconcile(world, next, plan, now);
}

fn not_owned(next: &mut Revision, kind: &str, name: &str, now: Timestamp) {
    let message = crate::children::not_owned(kind, name);
    next.conditions(now).mark_false(RESOURCES_AVAILABLE, "NotOwned", &message);
}

#[cfg(test)]
mod tests;
