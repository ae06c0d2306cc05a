//! What a Job's status may say after another: somebody else's controller may write it (`managedBy`), and who waits for a
//! Job relies on its end being one. A rule is asked only of what changes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{indexes, not_negative};
use crate::{object, status::Cause};

/// Findings about a status that takes the place of another.
pub(crate) fn job_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        not_negative(&new["status"], "status", field, &mut causes);
    }
    uncounted(new, &mut causes);
    conditions(new, old, &mut causes);
    counters(new, old, &mut causes);
    times(new, old, &mut causes);
    if is_finished(new) {
        finished(new, old, &mut causes);
    }
    index_lists(new, old, &mut causes);
    causes
}

fn holds(job: &Value, type_: &str) -> bool {
    let conditions = object::list(job, "/status/conditions");
    conditions.iter().any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

fn is_finished(job: &Value) -> bool {
    holds(job, "Complete") || holds(job, "Failed")
}

fn count(job: &Value, field: &str) -> i64 {
    job["status"][field].as_i64().unwrap_or_default()
}

/// A finding about the list of conditions as a whole.
fn about_conditions(causes: &mut Vec<Cause>, why: &str) {
    causes.push(Cause::other("FieldValueInvalid", "status.conditions", format!("Invalid value: {why}")));
}

fn uncounted(new: &Value, causes: &mut Vec<Cause>) {
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        let path = format!("status.uncountedTerminatedPods.{list}");
        let uids = object::list(new, &format!("/status/uncountedTerminatedPods/{list}"));
        for (at, uid) in uids.iter().enumerate() {
            let field = format!("{path}[{at}]");
            if uid == "" {
                causes.push(Cause::invalid(field, uid, "must not be empty"));
            } else if !seen.insert(uid.as_str()) {
                causes.push(Cause::duplicate(field, uid));
            }
        }
    }
}

/// An end stays, there is one, and it was decided before.
fn conditions(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    for type_ in ["Failed", "Complete", "FailureTarget"] {
        if holds(old, type_) && !holds(new, type_) {
            about_conditions(causes, &format!("cannot disable the terminal {type_}=True condition"));
        }
    }
    if holds(old, "SuccessCriteriaMet") && !holds(new, "SuccessCriteriaMet") {
        about_conditions(causes, "cannot disable the SuccessCriteriaMet=True condition");
    }
    let (complete, failed) = (holds(new, "Complete"), holds(new, "Failed"));
    let (met, target) = (holds(new, "SuccessCriteriaMet"), holds(new, "FailureTarget"));
    let changed = |type_: &str| holds(new, type_) != holds(old, type_);
    let wrong = [
        (complete && failed, "cannot set Complete=True and Failed=true conditions"),
        (complete && target, "cannot set Complete=True and FailureTarget=true conditions"),
        (
            failed && !target && changed("Failed"),
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            complete && !met && changed("Complete"),
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
    ];
    wrong.iter().filter(|(is, _)| *is).for_each(|(_, why)| about_conditions(causes, why));
}

/// Nothing that was counted is taken back, but for successes of a Job that became smaller.
fn counters(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let may_shrink = spec["completionMode"] == "Indexed" && spec["completions"] == spec["parallelism"];
    for (field, may_shrink) in [("failed", false), ("succeeded", may_shrink)] {
        if count(new, field) < count(old, field) && !may_shrink {
            let why = format!("cannot decrease the {field} counter");
            causes.push(Cause::invalid(format!("status.{field}"), &count(new, field).into(), &why));
        }
    }
    let changed = ["ready", "active"].iter().any(|field| count(new, field) != count(old, field));
    if changed && count(new, "ready") > count(new, "active") {
        let why = "cannot set more ready pods than active";
        causes.push(Cause::invalid("status.ready", &new["status"]["ready"], why));
    }
}

fn times(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let time = |job: &Value, field: &str| job["status"][field].as_str().map(str::to_owned);
    let (start, completion) = (time(new, "startTime"), time(new, "completionTime"));
    let complete = holds(new, "Complete");
    let changed = |field: &str| time(new, field) != time(old, field);
    let resumes = holds(old, "Suspended") && !holds(new, "Suspended");
    if time(old, "startTime").is_some() && changed("startTime") && new["spec"]["suspend"] != true && !resumes {
        causes.push(Cause::required("status.startTime", "startTime cannot be removed for unsuspended job"));
    }
    let value = &new["status"]["completionTime"];
    let mut refuse = |why: &str| causes.push(Cause::invalid("status.completionTime", value, why));
    if completion.is_some() && time(old, "completionTime").is_some() && changed("completionTime") {
        refuse("field is immutable");
    }
    if completion.is_some() && !complete && changed("completionTime") {
        refuse("cannot set completionTime when there is no Complete=True condition");
    }
    let parsed = |time: &Option<String>| time.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    if let (Some(start), Some(completion)) = (parsed(&start), parsed(&completion))
        && completion < start
    {
        refuse("must be equal to or after `startTime`");
    }
    if completion.is_none() && complete && (changed("completionTime") || !holds(old, "Complete")) {
        causes.push(Cause::required("status.completionTime", "completionTime is required for Complete jobs"));
    }
}

/// What has ended has begun, runs no more, and was counted.
fn finished(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let ends = !is_finished(old);
    let (status, was) = (&new["status"], &old["status"]);
    for field in ["active", "terminating"] {
        if count(new, field) > 0 && (ends || status[field] != was[field]) {
            let why = format!("{field}>0 is invalid for finished job");
            causes.push(Cause::invalid(format!("status.{field}"), &status[field], &why));
        }
    }
    let does_nothing = new["spec"]["suspend"] == true && new["spec"]["completions"] == 0;
    if status["startTime"].is_null() && !does_nothing && (ends || status["startTime"] != was["startTime"]) {
        causes.push(Cause::required("status.startTime", "startTime is required for finished job"));
    }
    let lists = ["succeeded", "failed"].map(|list| object::list(status, &format!("/uncountedTerminatedPods/{list}")));
    let field = "uncountedTerminatedPods";
    if lists.iter().any(|list| !list.is_empty()) && (ends || status[field] != was[field]) {
        causes.push(Cause::invalid(format!("status.{field}"), &status[field], "must be empty for finished job"));
    }
}

fn index_lists(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let (status, spec) = (&new["status"], &new["spec"]);
    let changed = |field: &str| status[field] != old["status"][field];
    let completions = spec["completions"].as_i64();
    let check = |field: &str, is_known: bool, why: &str, causes: &mut Vec<Cause>| {
        let Some(list) = status[field].as_str().filter(|_| changed(field)) else { return };
        if let Some(Err(wrong)) = completions.map(|completions| indexes::count(list, completions)) {
            let wrong = format!("error parsing {field}: {wrong}");
            causes.push(Cause::invalid(format!("status.{field}"), &status[field], &wrong));
        }
        if !is_known {
            causes.push(Cause::invalid(format!("status.{field}"), &status[field], why));
        }
    };
    let is_indexed = spec["completionMode"] == "Indexed" || status["completedIndexes"] == "";
    let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
    check("completedIndexes", is_indexed, why, causes);
    let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
    check("failedIndexes", !spec["backoffLimitPerIndex"].is_null(), why, causes);
}
