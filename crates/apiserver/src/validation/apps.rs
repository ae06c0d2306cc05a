//! Workloads.

use serde_json::Value;

use super::pod;
use crate::{label_selector::LabelSelector, object, status::Cause};

/// Deployments.
pub(crate) fn deployment(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = with_selector(new, old);
    let strategy = object::text(new, "/spec/strategy/type");
    if !matches!(strategy, "Recreate" | "RollingUpdate") {
        causes.push(Cause::not_supported("spec.strategy.type", &strategy.into(), &["Recreate", "RollingUpdate"]));
    }
    if strategy == "Recreate" && !object::is_empty(new.pointer("/spec/strategy/rollingUpdate")) {
        let why = "may not be specified when strategy `type` is 'Recreate'";
        causes.push(Cause::forbidden("spec.strategy.rollingUpdate", why));
    }
    let rolling = &new["spec"]["strategy"]["rollingUpdate"];
    let zero = |field: &str| rolling[field] == 0 || rolling[field] == "0%";
    if strategy == "RollingUpdate" && zero("maxSurge") && zero("maxUnavailable") {
        let why = "may not be 0 when `maxSurge` is 0";
        causes.push(Cause::invalid("spec.strategy.rollingUpdate.maxUnavailable", &rolling["maxUnavailable"], why));
    }
    causes
}

/// Any workload with a `LabelSelector`: it must match the template and cannot change.
pub(crate) fn with_selector(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    replicas(new, &mut causes);
    let selector = &new["spec"]["selector"];
    let labels = &new["spec"]["template"]["metadata"]["labels"];
    if selector.is_null() {
        causes.push(Cause::required("spec.selector", ""));
    }
    let empty = object::is_empty(selector.get("matchLabels")) && object::is_empty(selector.get("matchExpressions"));
    if empty {
        let why = "empty selector is invalid for deployment";
        if !selector.is_null() {
            causes.push(Cause::invalid("spec.selector", selector, why));
        }
        causes.extend(mismatch(labels));
    } else if !LabelSelector::from_object(selector).is_some_and(|s| s.matches(labels)) {
        causes.extend(mismatch(labels));
    }
    if let Some(old) = old
        && old["spec"]["selector"] != *selector
    {
        causes.push(Cause::invalid("spec.selector", selector, "field is immutable"));
    }
    template(new, &mut causes);
    causes
}

fn mismatch(labels: &Value) -> Option<Cause> {
    let shown = if labels.is_null() { serde_json::json!({}) } else { labels.clone() };
    Some(Cause::invalid("spec.template.metadata.labels", &shown, "`selector` does not match template `labels`"))
}

fn replicas(new: &Value, causes: &mut Vec<Cause>) {
    if let Some(count) = object::integer(new, "/spec/replicas").filter(|&n| n < 0) {
        causes.push(Cause::invalid("spec.replicas", &count.into(), "must be greater than or equal to 0"));
    }
}

fn template(new: &Value, causes: &mut Vec<Cause>) {
    super::metadata::labels(&new["spec"]["template"]["metadata"]["labels"], "spec.template.labels", causes);
    pod::spec(&new["spec"]["template"]["spec"], "spec.template.spec", causes);
    let policy = object::text(new, "/spec/template/spec/restartPolicy");
    if !matches!(policy, "" | "Always") {
        causes.push(Cause::not_supported("spec.template.spec.restartPolicy", &policy.into(), &["Always"]));
    }
}

/// ReplicationControllers.
pub(crate) fn replication_controller(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    replicas(new, &mut causes);
    let selector = &new["spec"]["selector"];
    if object::is_empty(Some(selector)) {
        causes.push(Cause::required("spec.selector", ""));
    }
    if new["spec"]["template"].is_null() {
        causes.push(Cause::required("spec.template", ""));
        return causes;
    }
    let labels = &new["spec"]["template"]["metadata"]["labels"];
    let pairs = selector.as_object().into_iter().flatten();
    if !pairs.clone().all(|(key, value)| labels.get(key) == Some(value)) {
        causes.extend(mismatch(labels));
    }
    template(new, &mut causes);
    causes
}
