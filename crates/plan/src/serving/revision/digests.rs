//! Tags become digests once, so that every instance of a Revision runs the same image.

use std::{ops::ControlFlow, time::Duration};

use knoll_api::{
    Timestamp,
    k8s_openapi::api::core::v1::Container,
    serving::{ContainerStatus, Revision},
};

use super::{CONTAINER_HEALTHY, RESOURCES_AVAILABLE};
use crate::{DigestRequest, Plan, Want, World, children, status::Reporting};

/// Whether the status holds a digest for every container.
pub(crate) fn is_resolved(revision: &Revision) -> bool {
    let spec = &revision.spec.pod_spec;
    let status = &revision.status;
    let known = status.container_statuses.len() + status.init_container_statuses.len();
    known == spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len)
}

/// Makes sure the status of `next` holds a digest for every container. Breaks while it does not.
pub(super) fn resolve(world: &World, next: &mut Revision, plan: &mut Plan, now: Timestamp) -> ControlFlow<()> {
    if is_resolved(next) {
        return ControlFlow::Continue(());
    }
    let spec = &next.spec.pod_spec;
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let all: Vec<(String, DigestState)> = spec
        .containers
        .iter()
        .chain(init)
        .map(|container| (container.name.clone(), digest(world, next, container)))
        .collect();
    let waiting: Vec<DigestRequest> = all.iter().filter_map(|(_, digest)| digest.to_ask(plan, now)).collect();
    for request in waiting {
        let already =
            plan.wants.iter().any(|want| matches!(want, Want::ResolveDigest { request: r, .. } if *r == request));
        if !already {
            let within = world.config.deployment.digest_resolution_timeout;
            plan.wants.push(Want::ResolveDigest { request, asker: knoll_api::Resource::key(next), within });
        }
    }
    let failure = all.iter().find_map(|(_, digest)| match digest {
        DigestState::Failed { request, message, .. } => Some((request.image.clone(), message.clone())),
        _ => None,
    });
    if let Some((image, why)) = failure {
        let message = format!("Unable to fetch image \"{image}\": failed to resolve image to digest: {why}");
        next.conditions(now).mark_false(CONTAINER_HEALTHY, "ContainerMissing", &message);
        return ControlFlow::Break(());
    }
    let resolved: Option<Vec<ContainerStatus>> = all
        .into_iter()
        .map(|(name, digest)| match digest {
            DigestState::Known(image_digest) => Some(ContainerStatus { name, image_digest }),
            DigestState::Unknown(_) | DigestState::Failed { .. } => None,
        })
        .collect();
    let Some(mut resolved) = resolved else {
        next.conditions(now).mark_unknown(RESOURCES_AVAILABLE, "ResolvingDigests", "");
        return ControlFlow::Break(());
    };
    next.status.init_container_statuses = resolved.split_off(next.spec.pod_spec.containers.len());
    next.status.container_statuses = resolved;
    ControlFlow::Continue(())
}

/// What is known of an image.
enum DigestState {
    /// `repository@digest`, or empty where the tag is to be kept.
    Known(String),
    /// Not asked yet, or not answered yet.
    Unknown(DigestRequest),
    /// The last attempt failed.
    Failed { request: DigestRequest, message: String, due: Timestamp },
}

impl DigestState {
    /// What to ask for now; a failure asks again when its wait is over.
    fn to_ask(&self, plan: &mut Plan, now: Timestamp) -> Option<DigestRequest> {
        match self {
            DigestState::Known(_) => None,
            DigestState::Unknown(request) => Some(request.clone()),
            DigestState::Failed { request, due, .. } if now >= *due => Some(request.clone()),
            DigestState::Failed { due, .. } => {
                plan.recheck_after(Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO));
                None
            }
        }
    }
}

fn digest(world: &World, revision: &Revision, container: &Container) -> DigestState {
    let image = container.image.clone().unwrap_or_default();
    if image.contains("@sha256:") {
        return DigestState::Known(image);
    }
    if world.config.deployment.registries_skipping_tag_resolving.contains(registry(&image)) {
        return DigestState::Known(String::new());
    }
    let request = request(revision, image);
    match world.observed.digests.get(&(knoll_api::Resource::key(revision), request.clone())) {
        None => DigestState::Unknown(request),
        Some(Ok(digest)) => DigestState::Known(digest.clone()),
        Some(Err(failure)) => {
            let due = failure.at.checked_add(failure.wait()).unwrap_or(Timestamp::MAX);
            DigestState::Failed { message: failure.message.clone(), due, request }
        }
    }
}

fn request(revision: &Revision, image: String) -> DigestRequest {
    let spec = &revision.spec.pod_spec;
    DigestRequest {
        image,
        namespace: children::namespace(revision),
        service_account: spec.service_account_name.clone().unwrap_or_default(),
        pull_secrets: spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect(),
    }
}

/// The registry of an image reference: what stands before the first slash, if it looks like a host.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "index.docker.io",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_first_part_is_a_registry_only_when_it_looks_like_a_host() {
        let registries = ["a", "a/b", "ko.local/a", "localhost/a", "h:5000/a/b:c", "dev.local"].map(super::registry);
        assert_eq!(
            registries,
            ["index.docker.io", "index.docker.io", "ko.local", "localhost", "h:5000", "index.docker.io"]
        );
    }
}
