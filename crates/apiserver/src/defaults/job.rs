//! Jobs.

use serde_json::{Map, Value};

use super::pod;
use crate::object::default as set;

/// One completion, six retries.
pub(crate) fn default(job: &mut Value) {
    spec(super::spec(job));
}

/// The spec of a job.
pub(super) fn spec(spec: &mut Map<String, Value>) {
    if spec.get("completions").is_none_or(Value::is_null) && spec.get("parallelism").is_none_or(Value::is_null) {
        spec.insert("completions".into(), 1.into());
    }
    set(spec, "parallelism", 1);
    set(spec, "backoffLimit", 6);
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    set(spec, "podReplacementPolicy", "TerminatingOrFailed");
    pod::template(spec);
}
