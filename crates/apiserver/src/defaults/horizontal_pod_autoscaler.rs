//! HorizontalPodAutoscalers.

use serde_json::{Value, json};

use crate::object::{self, default as set};

/// At least one replica; by processor use, where no metric is named.
pub(crate) fn default(autoscaler: &mut Value) {
    let spec = super::spec(autoscaler);
    set(spec, "minReplicas", 1);
    if object::is_empty(spec.get("metrics")) {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec.insert("metrics".into(), json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
}
