//! Security settings of pods and containers.

use serde_json::Value;

use super::{json, mask};
use crate::{
    config::{Features, SecurePodDefaults},
    field_error::{FieldError, FieldErrors, HERE},
};

fn validate_id(security: &Value, field: &str) -> Option<FieldError> {
    let id = json::member(security, field).as_i64()?;
    let is_out = !(0..=i64::from(i32::MAX)).contains(&id);
    is_out.then(|| FieldError::out_of_bounds(id, 0, i32::MAX, field))
}

/// Checks a container's settings.
pub(super) fn validate_container(security: &Value, features: &Features) -> FieldErrors {
    let mut errors = mask::security_context(security, features);
    for field in ["runAsUser", "runAsGroup"] {
        errors.also(validate_id(security, field));
    }
    errors
}

/// Checks the pod's settings.
pub(super) fn validate_pod(security: &Value, features: &Features) -> FieldErrors {
    let mut errors = mask::pod_security_context(security, features);
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        errors.also(validate_id(security, field));
    }
    for (at, group) in json::list(security, "supplementalGroups").iter().enumerate() {
        let group = group.as_i64().unwrap_or_default();
        if !(0..=i64::from(i32::MAX)).contains(&group) {
            let error = FieldError::out_of_bounds(group, 0, i32::MAX, HERE);
            errors.also(FieldErrors::from(error).via_field_index("supplementalGroups", at));
        }
    }
    errors
}

/// Warns of what Kubernetes leaves open when nobody says otherwise. Settings that were made on purpose are nobody's
/// business, and under secure defaults nothing is left open.
pub(super) fn warnings(pod: &Value, container: &Value, features: &Features) -> FieldErrors {
    let mut warnings = FieldErrors::none();
    if features.secure_pod_defaults != SecurePodDefaults::Disabled {
        return warnings;
    }
    let mut insecure = |path: &str| {
        let message = "Kubernetes default value is insecure, Knative may default this to secure in a future release";
        warnings.push(FieldError::new(message, &[path]).as_warning());
    };
    if !json::has(pod, "runAsNonRoot") && !json::has(container, "runAsNonRoot") {
        insecure("runAsNonRoot");
    }
    if !json::has(container, "allowPrivilegeEscalation") {
        insecure("allowPrivilegeEscalation");
    }
    if !json::has(container, "seccompProfile") && !json::has(pod, "seccompProfile") {
        insecure("seccompProfile");
    } else if [pod, container].iter().all(|s| json::text(json::member(s, "seccompProfile"), "type").is_empty()) {
        insecure("seccompProfile.type");
    }
    let capabilities = json::member(container, "capabilities");
    if capabilities.is_null() {
        insecure("capabilities");
    } else if !json::has(capabilities, "drop") {
        insecure("capabilities.drop");
    } else if json::list(capabilities, "drop").first().is_some_and(|first| first == "all") {
        let error = FieldError::invalid("all", "capabilities.drop").with_details("Must be spelled as 'ALL'");
        warnings.push(error.as_warning());
    }
    warnings
}
