//! NetworkPolicies.

use serde_json::{Value, json};

use crate::object;

/// What comes in is always governed; what goes out, where the policy speaks of it.
pub(crate) fn default(policy: &mut Value) {
    let spec = super::spec(policy);
    if object::is_empty(spec.get("policyTypes")) {
        let egress = !object::is_empty(spec.get("egress"));
        spec.insert("policyTypes".into(), if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    }
}
