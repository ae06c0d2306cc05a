//! What may change of a stored Job.

use serde_json::Value;

use crate::{object, status::Cause};

/// What stays as it was made.
const IMMUTABLE: &[&str] =
    &["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
/// What of the pods' template says where they run, by pointer: it may change until the first of them is made.
const PLACEMENT: &[&str] = &[
    "/metadata/annotations",
    "/metadata/labels",
    "/spec/nodeSelector",
    "/spec/schedulingGates",
    "/spec/tolerations",
    "/spec/affinity/nodeAffinity",
];

pub(super) fn unchanged(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let (was, is) = (&old["spec"], &new["spec"]);
    completions(was, is, causes);
    for field in IMMUTABLE {
        immutable(&was[*field], &is[*field], field, causes);
    }
    let may_move = was["suspend"] == true && object::text(old, "/status/startTime").is_empty();
    let fixed = |template: &Value| if may_move { without_placement(template) } else { template.clone() };
    if fixed(&was["template"]) != fixed(&is["template"]) {
        causes.push(Cause::invalid("spec.template", &is["template"], "field is immutable"));
    }
}

fn immutable(was: &Value, is: &Value, field: &str, causes: &mut Vec<Cause>) {
    if was != is {
        causes.push(Cause::invalid(format!("spec.{field}"), is, "field is immutable"));
    }
}

/// Completions stay as they are, but of an indexed Job may change together with its parallelism.
fn completions(was: &Value, is: &Value, causes: &mut Vec<Cause>) {
    if is["completionMode"] != "Indexed" {
        return immutable(&was["completions"], &is["completions"], "completions", causes);
    }
    let differs = was["completions"] != is["completions"] && !is["completions"].is_null();
    if differs && is["completions"] != is["parallelism"] {
        let why = "can only be modified in tandem with spec.parallelism";
        causes.push(Cause::invalid("spec.completions", &is["completions"], why));
    }
}

fn without_placement(template: &Value) -> Value {
    let mut rest = template.clone();
    for pointer in PLACEMENT {
        let Some((parent, field)) = pointer.rsplit_once('/') else { continue };
        if let Some(parent) = rest.pointer_mut(parent).and_then(Value::as_object_mut) {
            parent.remove(field);
        }
    }
    // Nothing left of an affinity is no affinity.
    if let Some(spec) = rest.get_mut("spec").and_then(Value::as_object_mut)
        && object::is_empty(spec.get("affinity"))
    {
        spec.remove("affinity");
    }
    rest
}
