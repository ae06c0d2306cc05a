//! What may change of a stored pod.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{object, resources::Subresource, status::Cause};

const WHY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Findings about a change, whichever part of the pod it came by.
pub(super) fn unchanged(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    if fixed(old, old) != fixed(new, old) {
        causes.push(Cause::forbidden("spec", WHY));
    }
    deadline(old, new, causes);
    tolerations(old, new, causes);
    let gates = |pod: &Value| texts(object::list(pod, "/spec/schedulingGates"));
    if !gates(new).is_subset(&gates(old)) {
        let why = "only deletion is allowed, but found new scheduling gates";
        causes.push(Cause::forbidden("spec.schedulingGates", why));
    }
    let grace = |pod: &Value| object::integer(pod, "/spec/terminationGracePeriodSeconds");
    if grace(old) != grace(new) && !(grace(old).is_some_and(|was| was < 0) && grace(new) == Some(1)) {
        causes.push(Cause::forbidden("spec", WHY));
    }
}

/// What only its own part changes: containers added to a running pod, and resources.
pub(crate) fn unchanged_parts(old: &Value, new: &Value, part: Option<Subresource>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let added = "/spec/ephemeralContainers";
    match part {
        Some(Subresource::EphemeralContainers)
            if !texts(object::list(old, added)).is_subset(&texts(object::list(new, added))) =>
        {
            let why = "existing ephemeral containers may not be changed or removed";
            causes.push(Cause::forbidden("spec.ephemeralContainers", why));
        }
        Some(Subresource::EphemeralContainers) => {}
        _ if old.pointer(added) != new.pointer(added) => causes.push(Cause::forbidden("spec", WHY)),
        _ => {}
    }
    if part != Some(Subresource::Resize) && resources(old) != resources(new) {
        causes.push(Cause::forbidden("spec", WHY));
    }
    causes
}

/// The items of a list as texts: lists are as long as users make them, and compared as sets.
fn texts(list: &[Value]) -> BTreeSet<String> {
    list.iter().map(Value::to_string).collect()
}

fn resources(pod: &Value) -> Vec<&Value> {
    let lists = ["/spec/initContainers", "/spec/containers"];
    lists.iter().flat_map(|list| object::list(pod, list)).map(|one| &one["resources"]).collect()
}

/// The spec without what may change.
fn fixed(pod: &Value, old: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    // Nulls mean absent; earlier versions left some.
    object::strip_nulls(&mut spec);
    let Some(map) = spec.as_object_mut() else { return spec };
    for free in [
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "schedulingGates",
        "ephemeralContainers",
    ] {
        map.remove(free);
    }
    // The scheduler's and the node's.
    if object::text(old, "/spec/nodeName").is_empty() {
        map.remove("nodeName");
    }
    for list in ["containers", "initContainers"] {
        for container in map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["image"] = Value::Null;
            container["resources"] = Value::Null;
        }
    }
    spec
}

fn deadline(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let of = |pod: &Value| object::integer(pod, "/spec/activeDeadlineSeconds");
    match (of(old), of(new)) {
        (Some(was), Some(is)) if is > was => {
            let why = "must be less than or equal to previous value";
            causes.push(Cause::invalid("spec.activeDeadlineSeconds", &is.into(), why));
        }
        (Some(_), None) => {
            let why = "must not update from a positive integer to nil value";
            causes.push(Cause::invalid("spec.activeDeadlineSeconds", &Value::Null, why));
        }
        _ => {}
    }
}

/// Tolerations are only added; the time for which one holds may change.
fn tolerations(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let without_time = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    let of = |pod: &Value| {
        let all: Vec<Value> = object::list(pod, "/spec/tolerations").iter().map(without_time).collect();
        texts(&all)
    };
    if !of(old).is_subset(&of(new)) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        causes.push(Cause::forbidden("spec.tolerations", why));
    }
}
