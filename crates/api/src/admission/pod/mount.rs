//! Mounts of volumes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Volumes, json, mask};
use crate::{
    config::Features,
    field_error::{FieldError, FieldErrors},
};

pub(super) fn validate(mounts: &[Value], volumes: &Volumes<'_>, features: &Features) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let mut paths = BTreeSet::new();
    for (at, mount) in mounts.iter().enumerate() {
        let mut found = mask::mount(mount, features);
        let name = json::text(mount, "name");
        let volume = volumes.get(name).copied().unwrap_or(&json::NOTHING);
        if !volumes.contains_key(name) {
            found.push(FieldError::new("volumeMount has no matching volume", &["name"]));
        }
        found.also(validate_path(json::text(mount, "mountPath"), &mut paths));
        found.also(validate_read_only(mount, volume));
        found.also(validate_propagation(mount, features));
        errors.also(found.via_index(at));
    }
    errors
}

fn validate_path(path: &str, seen: &mut BTreeSet<String>) -> Option<FieldError> {
    let clean = clean(path);
    let is_new = seen.insert(clean.clone());
    if path.is_empty() {
        Some(FieldError::missing(&["mountPath"]))
    } else if matches!(clean.as_str(), "/" | "/dev" | "/dev/log") {
        Some(FieldError::new(format!("mountPath {clean:?} is a reserved path"), &["mountPath"]))
    } else if !path.starts_with('/') {
        Some(FieldError::invalid(path, "mountPath"))
    } else if !is_new {
        Some(FieldError::invalid(format!("{path:?} must be unique"), "mountPath"))
    } else {
        None
    }
}

fn validate_read_only(mount: &Value, volume: &Value) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let read_only = json::truth(mount, "readOnly");
    let is_writable = ["emptyDir", "persistentVolumeClaim", "ephemeral"].iter().any(|kind| json::has(volume, kind));
    if !is_writable && !read_only {
        errors.push(FieldError::new("volume mount should be readOnly for this type of volume", &["readOnly"]));
    }
    if json::truth(json::member(volume, "persistentVolumeClaim"), "readOnly") && !read_only {
        errors.push(FieldError::new("volume is readOnly but volume mount is not", &["readOnly"]));
    }
    errors
}

fn validate_propagation(mount: &Value, features: &Features) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let Some(propagation) = json::member(mount, "mountPropagation").as_str() else { return errors };
    if !features.pod_spec_volumes_mount_propagation.is_enabled() {
        let name = json::text(mount, "name");
        let message = format!(
            "Volume Mount Propagation support is disabled, but found volume mount {name} with mount propagation"
        );
        errors.push(FieldError::new(message, &[]));
    }
    if !matches!(propagation, "None" | "HostToContainer") {
        let message = "mount propagation should be set to None or HostToContainer";
        errors.push(FieldError::new(message, &["mountPropagation"]));
    }
    errors
}

/// The shortest path that means the same.
fn clean(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (is_rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [
            ("/dev/", "/dev"),
            ("//a/./b/..", "/a"),
            ("/..", "/"),
            ("a/../..", ".."),
            ("", "."),
            ("/dev/log/", "/dev/log"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
