//! Bindings.

use serde_json::Value;

use super::each;
use crate::object::default as set;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles, users and groups are of the RBAC group.
pub(crate) fn binding(binding: &mut Value) {
    let Some(map) = binding.as_object_mut() else { return };
    if let Some(role) = super::inner(map, "roleRef") {
        set(role, "apiGroup", GROUP);
    }
    for subject in each(map, "subjects") {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            set(subject, "apiGroup", GROUP);
        }
    }
}
