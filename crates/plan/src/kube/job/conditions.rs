//! Conditions of Jobs.

use knoll_api::{
    Timestamp,
    k8s_openapi::{
        api::batch::v1::{Job, JobCondition, JobStatus},
        apimachinery::pkg::apis::meta::v1::Time,
    },
};

/// It has ended well.
pub(super) const COMPLETE: &str = "Complete";
/// It has ended badly.
pub(super) const FAILED: &str = "Failed";
/// It is going to end well, once its pods are gone and counted.
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// It is going to end badly, once its pods are gone and counted.
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
/// Nothing of it runs, as it was asked for.
pub(super) const SUSPENDED: &str = "Suspended";

/// A condition that holds.
pub(super) fn holding<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// The condition by which a Job has ended, if it has.
pub(in super::super) fn end(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    holding(status, COMPLETE).or_else(|| holding(status, FAILED))
}

/// Sets a condition to hold, unless it says that already. Returns whether it did not.
pub(super) fn set(status: &mut JobStatus, type_: &str, reason: &str, message: &str, now: Timestamp) -> bool {
    write(status, type_, true, reason, message, now)
}

/// Says whether the Job is suspended. Returns whether that is news; that one was never suspended is none.
pub(super) fn set_suspended(status: &mut JobStatus, suspended: bool, now: Timestamp) -> bool {
    let (reason, message) = if suspended { ("JobSuspended", "Job suspended") } else { ("JobResumed", "Job resumed") };
    write(status, SUSPENDED, suspended, reason, message, now)
}

fn write(status: &mut JobStatus, type_: &str, holds: bool, reason: &str, message: &str, now: Timestamp) -> bool {
    let word = if holds { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let at = conditions.iter().position(|condition| condition.type_ == type_);
    let says = |condition: &JobCondition| {
        let (of_reason, of_message) = (condition.reason.as_deref(), condition.message.as_deref());
        condition.status == word && of_reason == Some(reason) && of_message == Some(message)
    };
    let condition = JobCondition {
        type_: type_.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match at {
        Some(at) if says(&conditions[at]) => return false,
        Some(at) => conditions[at] = condition,
        None if holds => conditions.push(condition),
        None => {}
    }
    if conditions.is_empty() {
        status.conditions = None;
    }
    at.is_some() || holds
}
