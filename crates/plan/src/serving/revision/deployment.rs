//! Revision → Deployment. Replaced only when what is wanted changed, told by a hash label, so that defaults of
//! the API server and the scale, which is the autoscaler's, are never fought.

use std::ops::ControlFlow;

use knoll_api::{
    Resource, Timestamp, duration, json,
    k8s_openapi::{
        api::{
            apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
            core::v1::PodTemplateSpec,
        },
        apimachinery::pkg::{
            apis::meta::v1::{LabelSelector, ObjectMeta},
            util::intstr::IntOrString,
        },
    },
    labels::serving as keys,
    names,
    serving::Revision,
};

use super::{
    CONTAINER_HEALTHY, DEPLOYING, RESOURCES_AVAILABLE, health, not_owned,
    pods::{infrastructure_annotations, infrastructure_labels, pod_annotations, pod_spec},
};
use crate::{
    Plan, QueuePlacement, World,
    autoscaling::annotations::Annotations,
    children::{annotations, child_of, labels, map, some, union},
    status::Reporting,
};

/// Name of a Revision's Deployment.
pub(crate) fn name(revision: &Revision) -> String {
    names::child(revision.name(), "-deployment")
}

/// Makes the Deployment of `next` as it should be, and reports what it says. Breaks when the name is taken, or it would
/// have a container without an image.
pub(super) fn reconcile(world: &World, next: &mut Revision, plan: &mut Plan, now: Timestamp) -> ControlFlow<()> {
    let name = name(next);
    if world.settings.queue_placement == QueuePlacement::Sidecar
        && world.config.deployment.queue_sidecar_image.is_empty()
    {
        let message = "the ConfigMap config-deployment does not say the queue's image: set queue-sidecar-image";
        next.conditions(now).mark_false(RESOURCES_AVAILABLE, "QueueImageMissing", message);
        return ControlFlow::Break(());
    }
    let Some(existing) = world.deployments.get(&next.key().sibling(&name)) else {
        next.conditions(now).mark_unknown(RESOURCES_AVAILABLE, DEPLOYING, "").mark_unknown(
            CONTAINER_HEALTHY,
            DEPLOYING,
            "",
        );
        plan.create(make(world, next));
        return ControlFlow::Continue(());
    };
    if !existing.is_controlled_by(next) {
        not_owned(next, "Deployment", &name, now);
        return ControlFlow::Break(());
    }
    let template = make(world, next);
    if existing.label(keys::DEPLOYMENT_HASH) != template.label(keys::DEPLOYMENT_HASH) {
        plan.update(existing.as_ref(), replaced(&existing, template));
    }
    health::follow(world, next, &existing, now);
    ControlFlow::Continue(())
}

/// `existing` with all that `template` says, except the scale and what cannot change.
fn replaced(existing: &Deployment, template: Deployment) -> Deployment {
    let mut wanted = existing.clone();
    wanted.metadata.labels = some(union(labels(existing), labels(&template)));
    wanted.metadata.annotations = some(union(annotations(existing), annotations(&template)));
    let had = existing.spec.as_ref();
    wanted.spec = template.spec.map(|spec| DeploymentSpec {
        replicas: had.and_then(|had| had.replicas),
        selector: had.map(|had| had.selector.clone()).unwrap_or_default(),
        ..spec
    });
    wanted
}

fn make(world: &World, revision: &Revision) -> Deployment {
    let config = &world.config;
    let labels = infrastructure_labels(revision);
    let deadline = match revision.annotation(keys::PROGRESS_DEADLINE).map(duration::parse) {
        Some(Ok(nanoseconds)) => duration::to_std(nanoseconds),
        _ => config.deployment.progress_deadline,
    };
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: some(labels.clone()),
            annotations: some(pod_annotations(revision)),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(revision, config, world.settings.queue_placement)),
    };
    let spec = DeploymentSpec {
        selector: LabelSelector {
            match_labels: Some(map([(keys::REVISION_UID, revision.uid())])),
            ..LabelSelector::default()
        },
        progress_deadline_seconds: Some(i32::try_from(deadline.as_secs()).unwrap_or(i32::MAX)),
        revision_history_limit: Some(0),
        strategy: Some(DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDeployment {
                max_unavailable: Some(IntOrString::Int(0)),
                ..RollingUpdateDeployment::default()
            }),
        }),
        template,
        ..DeploymentSpec::default()
    };
    let metadata = child_of(revision, name(revision), labels, infrastructure_annotations(revision));
    let mut deployment = Deployment { metadata, spec: Some(spec), ..Deployment::default() };
    let hash = hash(&deployment);
    deployment.metadata.labels.get_or_insert_default().insert(keys::DEPLOYMENT_HASH.to_owned(), hash);
    let initial = Annotations::of(revision, &config.autoscaler).initial_scale();
    deployment.spec.as_mut().expect("the spec was set above").replicas = Some(initial);
    deployment
}

/// A short name for all that a Deployment says.
fn hash(deployment: &Deployment) -> String {
    let meta = &deployment.metadata;
    let said = json::bytes_of(&(&deployment.spec, &meta.annotations, &meta.labels));
    let hash = said.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    base36(hash)
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit(number % 36, 36).expect("a remainder of 36 is a digit"));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn base36_counts_like_a_number() {
        assert_eq!([0, 35, 36, u32::MAX].map(super::base36), ["0", "z", "10", "1z141z3"]);
    }
}
