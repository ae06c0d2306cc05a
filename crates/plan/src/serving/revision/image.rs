//! Each resolved image of a Revision is worth having on the node before it is needed.

use knoll_api::{
    Resource,
    caching::{Image, ImageSpec},
    names,
    serving::Revision,
};

use super::pods::{infrastructure_annotations, infrastructure_labels};
use crate::{Plan, World, children::child_of};

/// Makes the Images that are missing. They never change, for neither does the Revision.
pub(super) fn reconcile(world: &World, revision: &Revision, plan: &mut Plan) {
    let resolved = revision.status.container_statuses.iter().chain(&revision.status.init_container_statuses);
    for status in resolved {
        let name = names::child(&names::child(revision.name(), "-cache"), &format!("-{}", status.name));
        if world.images.get(&revision.key().sibling(&name)).is_some() {
            continue;
        }
        let image =
            if status.image_digest.is_empty() { as_written(revision, &status.name) } else { &status.image_digest };
        plan.create(make(revision, name, image.to_owned()));
    }
}

fn as_written<'a>(revision: &'a Revision, container: &str) -> &'a str {
    let spec = &revision.spec.pod_spec;
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let found = all.filter(|c| c.name == container).find_map(|c| c.image.as_deref());
    found.unwrap_or_default()
}

fn make(revision: &Revision, name: String, image: String) -> Image {
    let spec = &revision.spec.pod_spec;
    Image {
        metadata: child_of(revision, name, infrastructure_labels(revision), infrastructure_annotations(revision)),
        spec: ImageSpec {
            image,
            service_account_name: spec.service_account_name.clone().unwrap_or_default(),
            image_pull_secrets: spec.image_pull_secrets.clone().unwrap_or_default(),
        },
        ..Image::default()
    }
}
