//! What a write through a part may change: the part, and of the metadata what Kubernetes lets it.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::{
    object,
    resources::{Resource, Subresource},
    status::{Cause, Status},
};

/// The stored object with what the write may change of the wanted one.
///
/// # Errors
/// 422 when the part may not be changed so.
pub(crate) fn narrow(resource: &Resource, part: Option<Subresource>, old: &Value, new: Value) -> Result<Value, Status> {
    match part {
        Some(Subresource::Status) => Ok(status(resource, old, new)),
        Some(Subresource::Approval) => Ok(approval(old, &new)),
        Some(Subresource::EphemeralContainers) => ephemeral_containers(resource, old, &new),
        Some(Subresource::Resize) => Ok(resize(old, &new)),
        // These are made from the stored object, with one field changed.
        _ => Ok(new),
    }
}

/// A copy of the stored object that keeps the record of managers that came with the write.
fn base(old: &Value, new: &Value) -> Value {
    let mut result = old.clone();
    if let Some(managed) = new.pointer("/metadata/managedFields") {
        object::meta_mut(&mut result).insert("managedFields".into(), managed.clone());
    }
    result
}

fn status(resource: &Resource, old: &Value, mut new: Value) -> Value {
    // Piece by piece: most of the stored object is its spec, which is copied, and its status, which is not.
    let fields = old.as_object().into_iter().flatten().filter(|(field, _)| *field != "status");
    let mut result: Value = fields.map(|(field, value)| (field.clone(), value.clone())).collect();
    let wanted = new.as_object_mut().and_then(|map| map.remove("status"));
    if let (Some(status), Some(map)) = (wanted, result.as_object_mut()) {
        map.insert("status".into(), status);
    }
    if let Some(managed) = new.pointer("/metadata/managedFields") {
        object::meta_mut(&mut result).insert("managedFields".into(), managed.clone());
    }
    for field in metadata_with_status(resource) {
        // A writer of the status that does not speak of them leaves them as they are.
        if let Some(value) = new["metadata"].get(*field) {
            object::meta_mut(&mut result).insert((*field).to_owned(), value.clone());
        }
    }
    result
}

/// The metadata that a write of the status may change, by kind, as Kubernetes has it.
fn metadata_with_status(resource: &Resource) -> &'static [&'static str] {
    match (resource.group.as_str(), resource.plural.as_str()) {
        _ if resource.is_custom() => &[],
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", _) => &[],
        ("apps", "deployments") => &["annotations"],
        _ => &["annotations", "labels"],
    }
}

/// Only the conditions: certificates are the signer's.
fn approval(old: &Value, new: &Value) -> Value {
    let mut result = base(old, new);
    let conditions = new.pointer("/status/conditions").cloned();
    let status = object::map_at(&mut result, "status");
    match conditions {
        Some(conditions) => status.insert("conditions".into(), conditions),
        None => status.remove("conditions"),
    };
    result
}

/// Containers may be added, and those that are there stay as they are.
fn ephemeral_containers(resource: &Resource, old: &Value, new: &Value) -> Result<Value, Status> {
    let (had, has) = (object::list(old, "/spec/ephemeralContainers"), object::list(new, "/spec/ephemeralContainers"));
    let named: HashSet<&str> = has.iter().map(object::name_of).collect();
    for container in had {
        let name = object::name_of(container);
        if !named.contains(name) {
            let why = format!("existing ephemeral containers {name:?} may not be removed");
            let cause = Cause::forbidden("spec.ephemeralContainers", &why);
            return Err(resource.invalid(object::name(old), vec![cause]));
        }
    }
    let mut result = base(old, new);
    let by_name = by_name(had);
    let kept = |container: &Value| by_name.get(object::name_of(container)).copied();
    for container in has {
        if kept(container).is_some_and(|kept| !says_the_same(kept, container)) {
            let why = format!("existing ephemeral containers {:?} may not be changed", object::name_of(container));
            let cause = Cause::forbidden("spec.ephemeralContainers", &why);
            return Err(resource.invalid(object::name(old), vec![cause]));
        }
    }
    // What is there keeps the form it is stored in, defaults included.
    let all: Vec<Value> = has.iter().map(|container| kept(container).unwrap_or(container).clone()).collect();
    if !all.is_empty() {
        object::map_at(&mut result, "spec").insert("ephemeralContainers".into(), all.into());
    }
    Ok(result)
}

/// Containers by name, of equal names the first: there may be as many as fit into a request.
fn by_name(containers: &[Value]) -> HashMap<&str, &Value> {
    containers.iter().rev().map(|container| (object::name_of(container), container)).collect()
}

/// Whether everything that is said of a container is so already; what is left out has its default.
fn says_the_same(stored: &Value, given: &Value) -> bool {
    given.as_object().into_iter().flatten().all(|(field, value)| stored.get(field) == Some(value))
}

/// What containers request and are limited to; they stay who they are.
fn resize(old: &Value, new: &Value) -> Value {
    let mut result = base(old, new);
    for list in ["containers", "initContainers"] {
        let wanted = by_name(object::list(new, &format!("/spec/{list}")));
        let containers = result.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Some(wanted) = wanted.get(object::name_of(container)) else { continue };
            container["resources"] = wanted.get("resources").cloned().unwrap_or_else(|| json!({}));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::ResourceRegistry;

    fn narrowed(plural: &str, part: Subresource, old: &Value, new: Value) -> Result<Value, Status> {
        let registry = ResourceRegistry::built_in();
        let group = if plural == "certificatesigningrequests" { "certificates.k8s.io" } else { "" };
        narrow(registry.get(group, "v1", plural).unwrap(), Some(part), old, new)
    }

    #[test]
    fn a_status_changes_nothing_but_itself_and_labels_and_annotations() {
        let old = json!({"metadata": {"name": "p", "uid": "u", "ownerReferences": [{"uid": "o"}], "labels": {"a": "1"}, "annotations": {"x": "1"}},
            "spec": {"nodeName": "n"}, "status": {"phase": "Pending"}});
        let new = json!({"metadata": {"name": "p", "uid": "v", "ownerReferences": [], "finalizers": ["f"], "labels": {"a": "2"}},
            "spec": {"nodeName": "other"}, "status": {"phase": "Running"}});
        let result = narrowed("pods", Subresource::Status, &old, new).unwrap();
        assert_eq!((&result["spec"], &result["status"]["phase"]), (&old["spec"], &json!("Running")));
        let meta = json!({"name": "p", "uid": "u", "ownerReferences": [{"uid": "o"}], "labels": {"a": "2"}, "annotations": {"x": "1"}});
        assert_eq!(result["metadata"], meta);
    }

    #[test]
    fn an_approval_gives_no_certificate() {
        let old = json!({"metadata": {"name": "c"}, "spec": {"request": "r"}});
        let new = json!({"metadata": {"name": "c"}, "spec": {"request": "s"},
            "status": {"certificate": "mine", "conditions": [{"type": "Approved"}]}});
        let result = narrowed("certificatesigningrequests", Subresource::Approval, &old, new).unwrap();
        assert_eq!(result["spec"], old["spec"]);
        assert_eq!(result["status"], json!({"conditions": [{"type": "Approved"}]}));
    }

    #[test]
    fn ephemeral_containers_are_added_and_nothing_else_changes() {
        let old = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}],
            "ephemeralContainers": [{"name": "e", "image": "b", "imagePullPolicy": "Always"}]}});
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = "evil".into();
        new["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "b"}, {"name": "f", "image": "b"}]);
        let result = narrowed("pods", Subresource::EphemeralContainers, &old, new.clone()).unwrap();
        assert_eq!(result["spec"]["containers"], old["spec"]["containers"]);
        let all = json!([{"name": "e", "image": "b", "imagePullPolicy": "Always"}, {"name": "f", "image": "b"}]);
        assert_eq!(result["spec"]["ephemeralContainers"], all);
        new["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "other"}]);
        let refused = narrowed("pods", Subresource::EphemeralContainers, &old, new.clone()).unwrap_err();
        assert!(refused.message.contains("may not be changed"), "{}", refused.message);
        new["spec"]["ephemeralContainers"] = json!([]);
        let refused = narrowed("pods", Subresource::EphemeralContainers, &old, new).unwrap_err();
        assert!(refused.message.contains("may not be removed"), "{}", refused.message);
    }

    #[test]
    fn a_hundred_thousand_containers_meet_by_name() {
        // Ten thousand million comparisons, were each looked for among all.
        let list = |of: &str| -> Vec<Value> {
            (0..100_000).map(|n| json!({"name": format!("c{n}"), "resources": of})).collect()
        };
        let pod = |of: &str| json!({"metadata": {"name": "p"}, "spec": {"containers": list(of), "ephemeralContainers": list("")}});
        let (old, new) = (pod("old"), pod("new"));
        let resized = narrowed("pods", Subresource::Resize, &old, new.clone()).unwrap();
        assert_eq!(resized["spec"]["containers"], new["spec"]["containers"]);
        let same = narrowed("pods", Subresource::EphemeralContainers, &old, new).unwrap();
        assert_eq!(same["spec"], old["spec"]);
    }

    #[test]
    fn a_resize_changes_resources_alone() {
        let old = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}]}});
        let new = json!({"metadata": {"name": "p"}, "spec": {"hostPID": true, "containers": [
            {"name": "c", "image": "evil", "resources": {"limits": {"cpu": "2"}}}, {"name": "d"}]}});
        let result = narrowed("pods", Subresource::Resize, &old, new).unwrap();
        assert_eq!(
            result["spec"],
            json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}]})
        );
    }
}
