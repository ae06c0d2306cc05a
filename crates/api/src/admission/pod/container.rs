//! One container.

use serde_json::Value;

use super::{ContainerType, Volumes, env, image, json, mask, mount, port, probe, resources, security};
use crate::{
    config::Features,
    field_error::{FieldError, FieldErrors, HERE},
};

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// Checks a container of its type; `serving` is the port that requests come to.
pub(super) fn validate(
    container: &Value,
    kind: ContainerType,
    serving: &port::Serving,
    volumes: &Volumes<'_>,
    features: &Features,
) -> FieldErrors {
    let mut errors = match kind {
        ContainerType::Serving => validate_probes(container, Some(serving)),
        ContainerType::Sidecar if features.multi_container_probing.is_enabled() => validate_probes(container, None),
        ContainerType::Sidecar => PROBES.iter().fold(FieldErrors::none(), |mut errors, &field| {
            errors.also(mask::no_probe(json::member(container, field)).via_field(field));
            errors
        }),
        ContainerType::Init => PROBES
            .iter()
            .chain(&["lifecycle"])
            .filter(|field| json::has(container, field))
            .map(|field| FieldError::new("field not allowed in an init container", &[field]))
            .collect(),
    };
    errors.also(validate_fields(container, kind, volumes, features));
    errors
}

fn validate_probes(container: &Value, serving: Option<&port::Serving>) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for field in PROBES {
        let value = json::member(container, field);
        let found = if field == "readinessProbe" {
            probe::validate_readiness(value, serving)
        } else {
            probe::validate(value, serving)
        };
        errors.also(found.via_field(field));
    }
    errors
}

fn validate_fields(container: &Value, kind: ContainerType, volumes: &Volumes<'_>, features: &Features) -> FieldErrors {
    if json::is_zero(container) {
        return FieldError::missing(&[HERE]).into();
    }
    let mut errors = mask::container(container);
    let name = json::text(container, "name");
    if name == "queue-proxy" {
        errors.push(FieldError::new(format!("{name:?} is a reserved container name"), &["name"]));
    }
    errors.also(env::validate(json::list(container, "env"), kind, features).via_field("env"));
    errors.also(env::validate_sources(json::list(container, "envFrom")).via_field("envFrom"));
    errors.also(image::validate(json::text(container, "image")));
    errors.also(port::validate(json::list(container, "ports"), kind).via_field("ports"));
    let security = json::member(container, "securityContext");
    errors.also(security::validate_container(security, features).via_field("securityContext"));
    for (field, known) in [
        ("terminationMessagePolicy", ["File", "FallbackToLogsOnError", ""].as_slice()),
        ("imagePullPolicy", &["Always", "IfNotPresent", "Never", ""]),
    ] {
        let value = json::text(container, field);
        if !known.contains(&value) {
            errors.push(FieldError::invalid(value, field));
        }
    }
    errors.also(resources::validate(json::member(container, "resources")).via_field("resources"));
    let mounts = json::list(container, "volumeMounts");
    errors.also(mount::validate(mounts, volumes, features).via_field("volumeMounts"));
    errors
}
