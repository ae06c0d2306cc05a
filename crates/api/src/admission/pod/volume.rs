//! Volumes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{json, mask};
use crate::{
    config::Features,
    field_error::{FieldError, FieldErrors},
    quantity::Quantity,
    syntax,
};

/// Checks all volumes; `mounted` are the names that some container mounts.
pub(super) fn validate_all(volumes: &[Value], mounted: &BTreeSet<&str>, features: &Features) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let mut names = BTreeSet::new();
    for (at, volume) in volumes.iter().enumerate() {
        let name = json::text(volume, "name");
        let mut found = FieldErrors::none();
        if !names.insert(name) {
            found.push(FieldError::new(format!("duplicate volume name {name:?}"), &["name"]));
        }
        if !mounted.contains(name) {
            found.push(FieldError::new(format!("volume with name {name:?} not mounted"), &["name"]));
        }
        found.also(validate(volume, features));
        errors.also(found.via_index(at));
    }
    errors
}

fn validate(volume: &Value, features: &Features) -> FieldErrors {
    let name = json::text(volume, "name");
    // A volume that cannot be named is told nothing about its support.
    let mut errors = if name.is_empty() {
        FieldError::missing(&["name"]).into()
    } else if !syntax::dns1123_label(name).is_empty() {
        FieldError::invalid(name, "name").into()
    } else {
        validate_support(volume, name, features)
    };
    errors.also(mask::volume_source(volume, features));
    for kind in ["secret", "configMap"] {
        errors.also(validate_items(json::member(volume, kind)));
    }
    let sources = json::list(json::member(volume, "projected"), "sources");
    for (at, source) in sources.iter().enumerate() {
        errors.also(validate_projection(source).via_field_index("projected", at));
    }
    errors.also(validate_empty_dir(json::member(volume, "emptyDir")).via_field("emptyDir"));
    errors.also(validate_image(json::member(volume, "image")).via_field("image"));
    errors.also(validate_kind(volume, features));
    errors
}

fn validate_support(volume: &Value, name: &str, features: &Features) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let claim = json::member(volume, "persistentVolumeClaim");
    if !claim.is_null() {
        let claim_name = json::text(claim, "claimName");
        if !features.pod_spec_persistent_volume_claim.is_enabled() {
            let message =
                format!("Persistent volume claim support is disabled, but found persistent volume claim {claim_name}");
            errors.push(FieldError::new(message, &[]));
        }
        if !json::truth(claim, "readOnly") && !features.pod_spec_persistent_volume_write.is_enabled() {
            let message = format!(
                "Persistent volume write support is disabled, but found persistent volume claim {claim_name} that is \
                 not read-only"
            );
            errors.push(FieldError::new(message, &[]));
        }
    }
    for (field, shown, flag) in [
        ("image", "Image", features.pod_spec_volumes_image),
        ("emptyDir", "EmptyDir", features.pod_spec_volumes_empty_dir),
        ("hostPath", "HostPath", features.pod_spec_volumes_host_path),
        ("csi", "CSI", features.pod_spec_volumes_csi),
        ("ephemeral", "Ephemeral", features.pod_spec_volumes_ephemeral),
    ] {
        if json::has(volume, field) && !flag.is_enabled() {
            let message = format!("{shown} volume support is disabled, but found {shown} volume {name}");
            errors.push(FieldError::new(message, &[]));
        }
    }
    errors
}

/// Checks that a volume is of one kind.
fn validate_kind(volume: &Value, features: &Features) -> Option<FieldError> {
    const KINDS: [&str; 9] = [
        "secret",
        "configMap",
        "projected",
        "emptyDir",
        "persistentVolumeClaim",
        "hostPath",
        "csi",
        "ephemeral",
        "image",
    ];
    let found: Vec<&str> = KINDS.into_iter().filter(|kind| json::has(volume, kind)).collect();
    match found.as_slice() {
        [] => {
            let is_offered = |kind: &&str| match *kind {
                "emptyDir" => features.pod_spec_volumes_empty_dir.is_enabled(),
                "persistentVolumeClaim" => features.pod_spec_persistent_volume_claim.is_enabled(),
                "hostPath" => features.pod_spec_volumes_host_path.is_enabled(),
                "csi" => features.pod_spec_volumes_csi.is_enabled(),
                "ephemeral" => features.pod_spec_volumes_ephemeral.is_enabled(),
                "image" => features.pod_spec_volumes_image.is_enabled(),
                _ => true,
            };
            Some(FieldError::none_of(&KINDS.into_iter().filter(is_offered).collect::<Vec<_>>()))
        }
        [_] => None,
        several => Some(FieldError::several_of(several)),
    }
}

/// Checks the items of a source: each needs a key and a path.
fn validate_items(source: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for (at, item) in json::list(source, "items").iter().enumerate() {
        let missing = ["key", "path"].into_iter().filter(|field| json::text(item, field).is_empty());
        let found: FieldErrors = missing.map(|field| FieldError::missing(&[field])).collect();
        errors.also(found.via_field_index("items", at));
    }
    errors
}

fn validate_projection(source: &Value) -> FieldErrors {
    const KINDS: [&str; 4] = ["secret", "configMap", "serviceAccountToken", "downwardAPI"];
    let mut errors = mask::projection(source);
    let found: Vec<&str> = KINDS.into_iter().filter(|kind| json::has(source, kind)).collect();
    for kind in &found {
        let value = json::member(source, kind);
        let mut of_kind = FieldErrors::none();
        match *kind {
            "downwardAPI" => of_kind.also(validate_downward(value)),
            "serviceAccountToken" if json::text(value, "path").is_empty() => {
                of_kind.push(FieldError::missing(&["path"]));
            }
            "serviceAccountToken" => {}
            _ => {
                if json::text(value, "name").is_empty() {
                    of_kind.push(FieldError::missing(&["name"]));
                }
                of_kind.also(validate_items(value));
            }
        }
        errors.also(of_kind.via_field(kind));
    }
    match found.as_slice() {
        [] => errors.push(FieldError::none_of(&KINDS)),
        [_] => {}
        several => errors.push(FieldError::several_of(several)),
    }
    errors
}

fn validate_downward(value: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    for (at, item) in json::list(value, "items").iter().enumerate() {
        let mut found = FieldErrors::none();
        match (json::has(item, "fieldRef"), json::has(item, "resourceFieldRef")) {
            (false, false) => found.push(FieldError::none_of(&["fieldRef", "resourceFieldRef"])),
            (true, true) => {
                let message = "Within a single item, cannot set both";
                found.push(FieldError::new(message, &["resourceFieldRef", "fieldRef"]));
            }
            _ => {}
        }
        if json::text(item, "path").is_empty() {
            found.push(FieldError::missing(&["path"]));
        }
        errors.also(found.via_field_index("items", at));
    }
    errors
}

fn validate_empty_dir(dir: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let medium = json::text(dir, "medium");
    if !matches!(medium, "" | "Memory") {
        errors.push(FieldError::invalid(medium, "medium"));
    }
    let limit = json::text(dir, "sizeLimit");
    if Quantity::parse(limit).is_ok_and(|limit| limit.nano() < 0) {
        errors.push(FieldError::invalid(limit, "sizeLimit"));
    }
    errors
}

fn validate_image(image: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    if image.is_null() {
        return errors;
    }
    if json::text(image, "reference").is_empty() {
        errors.push(FieldError::missing(&["reference"]));
    }
    let policy = json::text(image, "pullPolicy");
    if !matches!(policy, "" | "Always" | "IfNotPresent" | "Never") {
        errors.push(FieldError::invalid(policy, "pullPolicy"));
    }
    errors
}
