//! What a Job's pod says of itself: which index it works on, how it ended, whether it was counted.

use std::collections::BTreeSet;

use knoll_api::{
    Resource,
    k8s_openapi::api::{
        batch::v1::{Job, JobSpec},
        core::v1::Pod,
    },
    labels::batch,
};

use super::super::pods;

/// Whether it completes one index after the other.
pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether a pod is made in place of another only when that has ended, not when it is going.
pub(super) fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// Whether the built-in controller leaves it to another.
pub(in super::super) fn is_managed_elsewhere(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != batch::JOB_CONTROLLER)
}

/// Whether its Job has not counted it yet.
pub(in super::super) fn is_uncounted(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == batch::JOB_TRACKING)
}

/// The pod as it is once it was counted.
pub(in super::super) fn counted(pod: &Pod) -> Pod {
    let mut counted = pod.clone();
    let finalizers = counted.metadata.finalizers.get_or_insert_default();
    finalizers.retain(|finalizer| finalizer != batch::JOB_TRACKING);
    if finalizers.is_empty() {
        counted.metadata.finalizers = None;
    }
    counted
}

/// Whether it ended well.
pub(super) fn has_succeeded(pod: &Pod) -> bool {
    pods::phase(pod) == "Succeeded"
}

/// Whether it counts as failed. One that is going counts when its Job replaces it at once; or else when no node will
/// tell how it ended, because none has it any more.
pub(super) fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ if replaces_failed_only(spec) => {
            pod.is_deleting() && pod.metadata.deletion_grace_period_seconds.unwrap_or_default() == 0
        }
        _ => pod.is_deleting(),
    }
}

/// Whether it is going and has not ended yet.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    pod.is_deleting() && !pods::is_finished(pod)
}

/// The index it works on; nothing when it does not say.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    pod.annotation(batch::COMPLETION_INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// The index it works on, if the Job has it.
pub(super) fn valid_index(spec: &JobSpec, pod: &Pod) -> Option<i32> {
    index(pod).filter(|index| *index < spec.completions.unwrap_or_default())
}

/// The indexes that pods work on.
pub(super) fn indexes<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> BTreeSet<i32> {
    pods.into_iter().filter_map(index).collect()
}

/// How many pods failed for the index before this one, and how many more failed that did not count.
pub(super) fn failures_before(pod: &Pod) -> (i32, i32) {
    let number = |key: &str| {
        let count = pod.annotation(key).and_then(|text| text.parse().ok());
        count.filter(|count: &i32| *count >= 0).unwrap_or_default()
    };
    (number(batch::INDEX_FAILURES), number(batch::INDEX_IGNORED_FAILURES))
}
