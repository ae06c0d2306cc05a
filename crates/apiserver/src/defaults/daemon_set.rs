//! DaemonSets.

use serde_json::{Value, json};

use super::pod;
use crate::object::default as set;

/// Rolled one by one.
pub(crate) fn default(daemon: &mut Value) {
    let spec = super::spec(daemon);
    set(spec, "revisionHistoryLimit", 10);
    let strategy = spec.entry("updateStrategy").or_insert_with(|| json!({}));
    if let Some(strategy) = strategy.as_object_mut() {
        set(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            strategy.entry("rollingUpdate").or_insert_with(|| json!({"maxSurge": 0, "maxUnavailable": 1}));
        }
    }
    pod::template(spec);
}
