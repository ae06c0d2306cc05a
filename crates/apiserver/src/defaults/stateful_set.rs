//! StatefulSets.

use serde_json::{Value, json};

use super::{each, pod};
use crate::object::default as set;

/// One replica, in order, rolled.
pub(crate) fn default(stateful: &mut Value) {
    let spec = super::spec(stateful);
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "podManagementPolicy", "OrderedReady");
    let strategy = spec.entry("updateStrategy").or_insert_with(|| json!({}));
    if let Some(strategy) = strategy.as_object_mut() {
        set(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            strategy.entry("rollingUpdate").or_insert_with(|| json!({"partition": 0}));
        }
    }
    spec.entry("persistentVolumeClaimRetentionPolicy")
        .or_insert_with(|| json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    for claim in each(spec, "volumeClaimTemplates") {
        if let Some(spec) = super::inner(claim, "spec") {
            set(spec, "volumeMode", "Filesystem");
        }
    }
    pod::template(spec);
}
