//! Jobs.

use serde_json::{Map, Value};

use super::{each, inner, pod};
use crate::object::{self, default as set};

/// One completion, six retries. A Job without labels has those of its pods.
pub(crate) fn default(job: &mut Value) {
    spec(super::spec(job));
    let labels = job["spec"]["template"]["metadata"]["labels"].clone();
    let metadata = object::map_at(job, "metadata");
    if !object::is_empty(Some(&labels)) && object::is_empty(metadata.get("labels")) {
        metadata.insert("labels".into(), labels);
    }
}

fn spec(spec: &mut Map<String, Value>) {
    let is_absent = |spec: &Map<String, Value>, key: &str| spec.get(key).is_none_or(Value::is_null);
    if is_absent(spec, "completions") && is_absent(spec, "parallelism") {
        spec.insert("completions".into(), 1.into());
    }
    set(spec, "parallelism", 1);
    // Where each index has attempts of its own, the Job as a whole may fail as often as they do.
    let limit = if is_absent(spec, "backoffLimitPerIndex") { 6 } else { i32::MAX };
    set(spec, "backoffLimit", limit);
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    set(spec, "manualSelector", false);
    // A policy for failures has to know how a pod ended.
    let replaced = if is_absent(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
    set(spec, "podReplacementPolicy", replaced);
    patterns(spec);
    pod::template(spec);
}

/// Conditions that a policy for failures asks for hold, unless it says otherwise.
pub(super) fn patterns(spec: &mut Map<String, Value>) {
    let Some(policy) = inner(spec, "podFailurePolicy") else { return };
    for rule in each(policy, "rules") {
        each(rule, "onPodConditions").for_each(|pattern| set(pattern, "status", "True"));
    }
}
