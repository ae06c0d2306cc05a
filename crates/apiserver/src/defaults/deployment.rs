//! Deployments.

use serde_json::{Value, json};

use super::{inner, pod};
use crate::object::{self, default as set};

/// One replica, rolled by quarters.
pub(crate) fn default(deployment: &mut Value) {
    let spec = super::spec(deployment);
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "progressDeadlineSeconds", 600);
    let strategy = spec.entry("strategy").or_insert_with(|| json!({}));
    if let Some(strategy) = strategy.as_object_mut() {
        set(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            if object::is_empty(strategy.get("rollingUpdate")) {
                strategy.insert("rollingUpdate".into(), json!({}));
            }
            if let Some(rolling) = inner(strategy, "rollingUpdate") {
                set(rolling, "maxUnavailable", "25%");
                set(rolling, "maxSurge", "25%");
            }
        }
    }
    pod::template(spec);
}
