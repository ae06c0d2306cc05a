//! JobSink. Whether its Job could be made is for the server to try.

use serde_json::{Value, json};

use super::super::json;
use crate::{
    field_error::{FieldError, FieldErrors},
    sinks::{EXECUTION_MODE, EXECUTION_MODE_BATCH},
};

/// Every container is told that it is run once for an event.
pub(in super::super) fn default(new: &mut Value) {
    let Some(pod) = new.pointer_mut("/spec/job/spec/template/spec") else { return };
    for key in ["containers", "initContainers"] {
        let containers = pod.get_mut(key).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|container| container.is_object()) {
            let is_told = json::list(container, "env").iter().any(|v| json::text(v, "name") == EXECUTION_MODE);
            if is_told {
                continue;
            }
            let variable = json!({"name": EXECUTION_MODE, "value": EXECUTION_MODE_BATCH});
            match container.get_mut("env") {
                Some(Value::Array(env)) => env.push(variable),
                None | Some(Value::Null) => json::set(container, "env", json!([variable])),
                Some(_) => {}
            }
        }
    }
}

pub(in super::super) fn validate(new: &Value) -> FieldErrors {
    let has_job = json::has(json::member(new, "spec"), "job");
    let missing = (!has_job).then(|| FieldError::none_of(&["job"]));
    FieldErrors::from(missing).via_field("spec")
}
