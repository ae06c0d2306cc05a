//! Counting a Job's pods, each once, whatever is lost in between.
//!
//! A pod that ended is held by a finalizer. First its uid is written to the Job's status, then the finalizer is taken
//! off, and only when it is seen to be off is the pod counted and its uid taken out again. So a crash between any two of
//! these steps leaves it clear which of them were taken. Of an indexed Job the index says whether a success was counted.

use std::collections::BTreeSet;

use knoll_api::{
    Resource,
    k8s_openapi::api::{
        batch::v1::{JobSpec, JobStatus},
        core::v1::Pod,
    },
};

use super::{
    attempt,
    failure_policy::{Verdict, verdict},
    tally::{Tally, Uncounted},
};

/// Most uids in the status at a time.
const MOST: usize = 500;

/// How the Job stands when its pods are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It goes on.
    Running,
    /// It ends well, or goes away: pods that have not ended are not asked any more.
    Leaving,
    /// It ends badly: every pod that has not ended counts as failed.
    Failing,
}

/// Counts the pods of the list whose finalizer is off.
pub(super) fn settle(status: &mut JobStatus, pods: &[&Pod]) {
    let listed = status.uncounted_terminated_pods.get_or_insert_default();
    let held: BTreeSet<&str> = pods.iter().filter(|pod| attempt::is_uncounted(pod)).map(|pod| pod.uid()).collect();
    let settled = |uids: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
        let Some(list) = uids else { return };
        let before = list.len();
        list.retain(|uid| held.contains(uid.as_str()));
        let more = i32::try_from(before - list.len()).unwrap_or(i32::MAX);
        *counter = some(counter.unwrap_or_default().saturating_add(more));
        if list.is_empty() {
            *uids = None;
        }
    };
    settled(&mut listed.succeeded, &mut status.succeeded);
    settled(&mut listed.failed, &mut status.failed);
}

/// Lists the uids of pods that ended, and says which may lose their finalizer once that is written.
pub(super) fn list<'a>(spec: &JobSpec, status: &mut JobStatus, tally: &Tally<'a>, stage: Stage) -> Vec<&'a Pod> {
    let listed = status.uncounted_terminated_pods.get_or_insert_default().clone();
    let known = Uncounted::of(Some(&listed));
    let (mut succeeded, mut failed, mut release) = (Vec::new(), Vec::new(), Vec::new());
    let is_indexed = attempt::is_indexed(spec);
    for pod in tally.pods.iter().copied().filter(|pod| attempt::is_uncounted(pod)) {
        if !may_be_released(spec, tally, stage, pod) {
            continue;
        }
        if known.len() + succeeded.len() + failed.len() >= MOST || release.len() >= MOST {
            break;
        }
        release.push(pod);
        let counts = !known.has(pod) && (!is_indexed || attempt::valid_index(spec, pod).is_some());
        if !counts {
            continue;
        }
        if attempt::has_succeeded(pod) {
            if !is_indexed {
                succeeded.push(pod.uid().to_owned());
            }
        } else if (attempt::has_failed(spec, pod) || stage == Stage::Failing)
            && verdict(spec.pod_failure_policy.as_ref(), pod) != Verdict::Ignore
        {
            failed.push(pod.uid().to_owned());
        }
    }
    let list = status.uncounted_terminated_pods.get_or_insert_default();
    if !succeeded.is_empty() {
        list.succeeded.get_or_insert_default().extend(succeeded);
    }
    if !failed.is_empty() {
        list.failed.get_or_insert_default().extend(failed);
    }
    release
}

/// Whether a pod has said all that is asked of it.
fn may_be_released(spec: &JobSpec, tally: &Tally<'_>, stage: Stage, pod: &Pod) -> bool {
    if stage != Stage::Running || attempt::has_succeeded(pod) {
        return true;
    }
    let is_kept = attempt::valid_index(spec, pod)
        .and_then(|index| tally.last_failed.get(&index))
        .is_some_and(|last| last.uid() == pod.uid());
    attempt::has_failed(spec, pod) && !is_kept
}

/// A count as the API writes it: zero is left out.
pub(super) fn some(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}
