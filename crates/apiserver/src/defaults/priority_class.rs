//! PriorityClasses.

use serde_json::Value;

use crate::object::default as set;

/// They preempt.
pub(crate) fn default(class: &mut Value) {
    let Some(map) = class.as_object_mut() else { return };
    set(map, "preemptionPolicy", "PreemptLowerPriority");
}
