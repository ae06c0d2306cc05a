//! The pod's part of a revision's spec: what may be set, and to what.

mod container;
mod env;
mod image;
mod mask;
mod mount;
mod port;
mod probe;
mod resources;
mod security;
mod volume;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::json;
use crate::{
    config::Features,
    field_error::{FieldError, FieldErrors},
    syntax,
};

/// What a container is in its pod; rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContainerType {
    /// It serves requests.
    Serving,
    /// It runs beside the serving one.
    Sidecar,
    /// It runs before them.
    Init,
}

/// Declared volumes by name; the last of equal names counts.
type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

/// Checks the pod's part of a revision's spec.
pub(super) fn validate(spec: &Value, features: &Features) -> FieldErrors {
    let containers = json::list(spec, "containers");
    let init_containers = json::list(spec, "initContainers");
    let pod_security = json::member(spec, "securityContext");

    let mut errors = mask::pod_spec(spec, features);
    errors.also(security::validate_pod(pod_security, features).via_field("securityContext"));
    for (field, containers) in [("containers", containers), ("initContainers", init_containers)] {
        for (at, container) in containers.iter().enumerate() {
            let warnings = security::warnings(pod_security, json::member(container, "securityContext"), features);
            errors.also(warnings.via_field("securityContext").via_field_index(field, at));
        }
    }

    let mounted: BTreeSet<&str> = init_containers
        .iter()
        .chain(containers)
        .flat_map(|container| json::list(container, "volumeMounts"))
        .map(|mount| json::text(mount, "name"))
        .collect();
    let declared = json::list(spec, "volumes");
    errors.also(volume::validate_all(declared, &mounted, features).via_field("volumes"));
    let volumes: Volumes<'_> = declared.iter().map(|volume| (json::text(volume, "name"), volume)).collect();

    errors.also(validate_init_containers(init_containers, containers, &volumes, features));
    errors.also(port::validate_count(containers).map(|error| error.via_field("containers[*]")));
    errors.also(validate_containers(containers, &volumes, features));

    let account = json::text(spec, "serviceAccountName");
    if !account.is_empty() {
        for problem in syntax::dns1123_subdomain(account) {
            errors.push(FieldError::invalid(account, "serviceAccountName").with_details(problem));
        }
    }
    errors
}

fn validate_containers(containers: &[Value], volumes: &Volumes<'_>, features: &Features) -> FieldErrors {
    let port = port::serving(containers);
    let mut errors = FieldErrors::none();
    match containers {
        [] => errors.push(FieldError::missing(&["containers"])),
        [only] => {
            let found = container::validate(only, ContainerType::Serving, &port, volumes, features);
            errors.also(found.via_field_index("containers", 0));
        }
        several if !features.multi_container.is_enabled() => {
            let message = format!("multi-container is off, but found {} containers", several.len());
            errors.push(FieldError::new(message, &[]));
        }
        several => {
            let mut names = BTreeSet::new();
            for (at, one) in several.iter().enumerate() {
                let serves = !json::list(one, "ports").is_empty();
                let kind = if serves { ContainerType::Serving } else { ContainerType::Sidecar };
                let mut found = container::validate(one, kind, &port, volumes, features);
                let name = json::text(one, "name");
                if !names.insert(name) {
                    found.push(duplicate_name(name));
                }
                errors.also(found.via_field_index("containers", at));
            }
        }
    }
    errors
}

fn validate_init_containers(
    init_containers: &[Value],
    others: &[Value],
    volumes: &Volumes<'_>,
    features: &Features,
) -> FieldErrors {
    if init_containers.is_empty() {
        return FieldErrors::none();
    }
    if !features.pod_spec_init_containers.is_enabled() {
        let count = init_containers.len();
        let message = format!("pod spec support for init-containers is off, but found {count} init containers");
        return FieldError::new(message, &[]).into();
    }
    let names: BTreeSet<&str> = others.iter().map(|container| json::text(container, "name")).collect();
    let port = port::serving(others);
    let mut errors = FieldErrors::none();
    for (at, one) in init_containers.iter().enumerate() {
        let mut found = container::validate(one, ContainerType::Init, &port, volumes, features);
        let name = json::text(one, "name");
        if names.contains(name) {
            found.push(duplicate_name(name));
        }
        // Clients know these under the path of the ordinary containers.
        errors.also(found.via_field_index("containers", at));
    }
    errors
}

fn duplicate_name(name: &str) -> FieldError {
    FieldError::new(format!("duplicate container name {name:?}"), &["name"])
}
