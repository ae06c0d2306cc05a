//! ReplicaSets.

use serde_json::Value;

use super::pod;
use crate::object;

/// One replica.
pub(crate) fn default(set: &mut Value) {
    let spec = super::spec(set);
    object::default(spec, "replicas", 1);
    pod::template(spec);
}
