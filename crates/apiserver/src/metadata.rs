//! The rules of object metadata: names, identity, time, generation.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    object,
    resources::{Resource, Subresource},
    status::{Cause, Status},
};

/// A name: the prefix, cut to fit, and five random characters.
pub(crate) fn generate_name(prefix: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = uuid::Uuid::new_v4();
    let suffix: String =
        random.as_bytes()[..5].iter().map(|b| ALPHABET[*b as usize % ALPHABET.len()] as char).collect();
    let cut: String = prefix.chars().take(58).collect();
    format!("{cut}{suffix}")
}

/// Makes a decoded object the first state of a new one: identity, time, generation; no status.
///
/// # Errors
/// When the namespace is not that of the request, the version is set, or there is no name.
pub(crate) fn prepare_create(
    resource: &Resource,
    namespace: &str,
    object: &mut Value,
    now: Timestamp,
) -> Result<(), Status> {
    claim_namespace(resource, namespace, object)?;
    if !object::resource_version(object).is_empty() {
        return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    if resource.has(Subresource::Status)
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
    let has_generation = resource.has_generation;
    let meta = object::meta_mut(object);
    for field in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        meta.remove(field);
    }
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".into(), object::seconds(now).into());
    if has_generation {
        meta.insert("generation".into(), 1.into());
    }
    if !resource.namespaced {
        meta.remove("namespace");
    }
    Ok(())
}

/// The namespace of the request becomes the object's.
pub(crate) fn claim_namespace(resource: &Resource, namespace: &str, object: &mut Value) -> Result<(), Status> {
    if !resource.namespaced {
        return Ok(());
    }
    if namespace.is_empty() {
        return Err(Status::bad_request("an empty namespace may not be set during creation"));
    }
    let own = object::namespace(object);
    if !own.is_empty() && own != namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({own} vs {namespace})"
        )));
    }
    object::meta_mut(object).insert("namespace".into(), namespace.into());
    Ok(())
}

/// Takes over what a writer cannot change.
///
/// # Errors
/// When names or uids differ, or finalizers are added to an object that is being deleted.
pub(crate) fn prepare_update(resource: &Resource, old: &Value, new: &mut Value) -> Result<(), Status> {
    let name = object::name(old).to_owned();
    let given = object::name(new);
    if !given.is_empty() && given != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    check_uid(resource, old, object::uid(new))?;
    if !object::namespace(old).is_empty() {
        claim_namespace(resource, object::namespace(old), new)?;
    }
    if resource.has(Subresource::Status) {
        keep(old, new, "status");
    }
    let old_meta = &old["metadata"];
    let meta = object::meta_mut(new);
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        match old_meta.get(field) {
            Some(value) => meta.insert(field.into(), value.clone()),
            None if field == "generateName" => None,
            None => meta.remove(field),
        };
    }
    meta.remove("selfLink");
    if object::is_deleting(old) {
        let had: HashSet<&str> = object::finalizers(old).collect();
        let added: Vec<&str> = object::finalizers(new).filter(|f| !had.contains(f)).collect();
        if !added.is_empty() {
            let listed: Vec<String> = added.iter().map(|f| (*f).to_owned()).collect();
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {listed:?}"
            );
            return Err(resource.invalid(&name, vec![Cause::forbidden("metadata.finalizers", &why)]));
        }
    }
    Ok(())
}

/// Counts the generation where what is wanted differs. For complete states: what the server fills in is in both.
pub(crate) fn count_generation(resource: &Resource, old: &Value, new: &mut Value) {
    if resource.has_generation && wants_differ(resource, old, new) {
        bump_generation(new);
    }
}

/// 409 unless `uid` is empty or the object's.
///
/// # Errors
/// As said.
pub(crate) fn check_uid(resource: &Resource, object: &Value, uid: &str) -> Result<(), Status> {
    if uid.is_empty() || uid == object::uid(object) {
        return Ok(());
    }
    let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object::uid(object));
    Err(Status::conflict(&resource.group, &resource.plural, object::name(object), &why))
}

/// Copies one top-level field from `old`, or removes it.
pub(crate) fn keep(old: &Value, new: &mut Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => map.insert(field.into(), value.clone()),
        None => map.remove(field),
    };
}

/// Adds one to the generation.
pub(crate) fn bump_generation(object: &mut Value) {
    let generation = object::integer(object, "/metadata/generation").unwrap_or(0);
    object::meta_mut(object).insert("generation".into(), (generation + 1).into());
}

fn wants_differ(resource: &Resource, old: &Value, new: &Value) -> bool {
    if !resource.is_custom() {
        return old.get("spec") != new.get("spec") || (old.get("spec").is_none() && differs_outside_metadata(old, new));
    }
    differs_outside_metadata(old, new)
}

fn differs_outside_metadata(old: &Value, new: &Value) -> bool {
    let outside = |object: &Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        let wanted = fields.filter(|(k, _)| !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind"));
        wanted.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    outside(old) != outside(new)
}

/// Whether two states are the same, apart from version and the bookkeeping of field managers.
pub(crate) fn is_no_op(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old == new };
    let same = |key: &String, value: &Value| new.get(key).is_some_and(|other| key == "metadata" || value == other);
    old.len() == new.len()
        && old.iter().all(|(key, value)| same(key, value))
        && old.get("metadata").zip(new.get("metadata")).is_none_or(|(old, new)| same_metadata(old, new))
}

fn same_metadata(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old == new };
    let counts = |(key, value): &(&String, &Value)| *key != "resourceVersion" && !object::is_empty(Some(value));
    let same = |key: &String, old: &Value, new: &Value| match key.as_str() {
        "managedFields" => same_managers(old, new),
        _ => old == new,
    };
    old.iter().filter(counts).count() == new.iter().filter(counts).count()
        && old.iter().filter(counts).all(|(key, old)| new.get(key).is_some_and(|new| same(key, old, new)))
}

/// Whether the same managers manage the same, whenever they last wrote.
fn same_managers(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_array(), new.as_array()) else { return old == new };
    let same = |old: &Value, new: &Value| {
        let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old == new };
        let counts = |(key, _): &(&String, &Value)| *key != "time";
        old.iter().filter(counts).count() == new.iter().filter(counts).count()
            && old.iter().filter(counts).all(|(key, value)| new.get(key) == Some(value))
    };
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new))
}

/// Marks an object as being deleted, `grace` seconds from now.
pub(crate) fn mark_deleted(resource: &Resource, object: &mut Value, grace: i64, now: Timestamp) {
    let at = now.checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(now);
    let meta = object::meta_mut(object);
    meta.insert("deletionTimestamp".into(), object::seconds(at).into());
    meta.insert("deletionGracePeriodSeconds".into(), grace.into());
    if resource.has_generation {
        bump_generation(object);
    }
}

/// Brings the end of an object that is being deleted with `left` seconds of grace forward to `grace` seconds.
pub(crate) fn hasten_deletion(object: &mut Value, left: i64, grace: i64) {
    let meta = object::meta_mut(object);
    let ends = meta.get("deletionTimestamp").and_then(Value::as_str).and_then(|at| at.parse::<Timestamp>().ok());
    if let Some(at) =
        ends.and_then(|at| at.checked_sub(jiff::SignedDuration::from_secs(left.saturating_sub(grace))).ok())
    {
        meta.insert("deletionTimestamp".into(), object::seconds(at).into());
    }
    meta.insert("deletionGracePeriodSeconds".into(), grace.into());
}

/// Adds a finalizer unless it is there.
pub(crate) fn add_finalizer(object: &mut Value, finalizer: &str) {
    if !object::finalizers(object).any(|f| f == finalizer) {
        let meta = object::meta_mut(object);
        match meta.get_mut("finalizers").and_then(Value::as_array_mut) {
            Some(list) => list.push(finalizer.into()),
            None => {
                meta.insert("finalizers".into(), json!([finalizer]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::ResourceRegistry;

    fn deployments() -> std::sync::Arc<Resource> {
        ResourceRegistry::built_in().get("apps", "v1", "deployments").unwrap().clone()
    }

    #[test]
    fn the_generation_counts_spec_changes_alone() {
        let old = json!({"metadata": {"name": "d", "namespace": "n", "generation": 3}, "spec": {"replicas": 1}});
        let mut relabelled = old.clone();
        relabelled["metadata"]["labels"] = json!({"a": "b"});
        prepare_update(&deployments(), &old, &mut relabelled).unwrap();
        count_generation(&deployments(), &old, &mut relabelled);
        assert_eq!(relabelled["metadata"]["generation"], 3);
        let mut scaled = old.clone();
        scaled["spec"]["replicas"] = 2.into();
        prepare_update(&deployments(), &old, &mut scaled).unwrap();
        count_generation(&deployments(), &old, &mut scaled);
        assert_eq!(scaled["metadata"]["generation"], 4);
    }

    #[test]
    fn versions_and_times_of_managers_alone_are_no_change() {
        let old = json!({"kind": "Pod", "metadata": {"name": "p", "resourceVersion": "3", "labels": {},
            "managedFields": [{"manager": "m", "time": "1", "fieldsV1": {"f:spec": {}}}]}, "status": {"phase": "x"}});
        let with = |pointer: &str, value: Value| {
            let mut new = old.clone();
            *new.pointer_mut(pointer).expect("it is there") = value;
            new
        };
        assert!(is_no_op(&old, &old));
        assert!(is_no_op(&old, &with("/metadata/resourceVersion", "4".into())));
        assert!(is_no_op(&old, &with("/metadata/managedFields/0/time", "2".into())));
        assert!(is_no_op(&old, &with("/metadata/labels", Value::Null)));
        assert!(!is_no_op(&old, &with("/metadata/labels", json!({"a": "b"}))));
        assert!(!is_no_op(&old, &with("/metadata/managedFields/0/manager", "n".into())));
        assert!(!is_no_op(&old, &with("/metadata/managedFields", json!([]))));
        assert!(!is_no_op(&old, &with("/status/phase", "y".into())));
        assert!(!is_no_op(&with("/status", Value::Null), &old));
    }

    #[test]
    fn finalizers_cannot_be_added_to_what_is_going() {
        let old = json!({"metadata": {"name": "d", "namespace": "n", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["a/b", "c/d"]);
        assert_eq!(prepare_update(&deployments(), &old, &mut new).unwrap_err().code, 422);
        // Ten thousand million comparisons, were each looked for among all.
        let many: Vec<String> = (0..100_000).map(|n| format!("a/f{n}")).collect();
        let mut old = old;
        old["metadata"]["finalizers"] = json!(many);
        assert!(prepare_update(&deployments(), &old, &mut old.clone()).is_ok());
        let mut fewer = old.clone();
        fewer["metadata"]["finalizers"] = json!([]);
        assert!(prepare_update(&deployments(), &old, &mut fewer).is_ok());
    }
}
