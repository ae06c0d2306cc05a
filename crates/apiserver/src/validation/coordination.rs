//! Leases.

use serde_json::Value;

use crate::status::Cause;

/// Durations and counts are positive.
pub(crate) fn lease(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(n) = new["spec"]["leaseDurationSeconds"].as_i64().filter(|&n| n <= 0) {
        causes.push(Cause::invalid("spec.leaseDurationSeconds", &n.into(), "must be greater than 0"));
    }
    if let Some(n) = new["spec"]["leaseTransitions"].as_i64().filter(|&n| n < 0) {
        causes.push(Cause::invalid("spec.leaseTransitions", &n.into(), "must be greater than or equal to 0"));
    }
    causes
}
