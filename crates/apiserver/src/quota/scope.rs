//! Which pods a ResourceQuota is about. Quotas with scopes count pods only.

use serde_json::Value;

use crate::object;

/// Whether the quota counts every object.
pub(super) fn covers_all(quota: &Value) -> bool {
    object::list(quota, "/spec/scopes").is_empty()
        && object::list(quota, "/spec/scopeSelector/matchExpressions").is_empty()
}

/// Whether the quota counts the object.
pub(super) fn covers(quota: &Value, plural: &str, object: &Value) -> bool {
    if covers_all(quota) {
        return true;
    }
    let plain = object::list(quota, "/spec/scopes");
    let selected = object::list(quota, "/spec/scopeSelector/matchExpressions");
    plural == "pods"
        && plain.iter().all(|scope| is_in(scope.as_str().unwrap_or_default(), object))
        && selected.iter().all(|expression| is_selected(expression, object))
}

fn is_in(scope: &str, pod: &Value) -> bool {
    let best_effort = object::text(pod, "/status/qosClass") == "BestEffort";
    let terminating = object::integer(pod, "/spec/activeDeadlineSeconds").is_some();
    match scope {
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "PriorityClass" => !object::text(pod, "/spec/priorityClassName").is_empty(),
        _ => false,
    }
}

fn is_selected(expression: &Value, pod: &Value) -> bool {
    let scope = object::text(expression, "/scopeName");
    let listed = || {
        let class = object::text(pod, "/spec/priorityClassName");
        object::list(expression, "/values").iter().any(|value| value == class)
    };
    match object::text(expression, "/operator") {
        "In" => scope == "PriorityClass" && is_in(scope, pod) && listed(),
        "NotIn" => scope == "PriorityClass" && is_in(scope, pod) && !listed(),
        "DoesNotExist" => !is_in(scope, pod),
        _ => is_in(scope, pod),
    }
}
