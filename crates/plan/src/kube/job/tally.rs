//! What a Job's pods come to: how many run, and how many have succeeded and failed with those it has not counted yet.

use std::collections::{BTreeMap, BTreeSet};

use knoll_api::{
    Resource,
    k8s_openapi::api::{
        batch::v1::{JobSpec, JobStatus, UncountedTerminatedPods},
        core::v1::Pod,
    },
};

use super::{
    super::pods,
    attempt, backoff,
    failure_policy::{Verdict, verdict},
    indexes::Indexes,
};

/// See the module.
pub(super) struct Tally<'a> {
    /// All that matter still: not those that were counted as successes.
    pub(super) pods: Vec<&'a Pod>,
    /// Those that neither ended nor are going.
    pub(super) active: Vec<&'a Pod>,
    /// Those that are going and have not ended.
    pub(super) terminating: Vec<&'a Pod>,
    /// How many have succeeded; of an indexed Job, how many indexes.
    pub(super) succeeded: i32,
    /// How many have failed.
    pub(super) failed: i32,
    /// The indexes that have succeeded.
    pub(super) succeeded_indexes: Indexes,
    /// The indexes that have failed for good, where each has a limit of its own.
    pub(super) failed_indexes: Option<Indexes>,
    /// The pod that failed last for each index that nobody works on: it says how often the index has failed, and is kept
    /// until another says so.
    pub(super) last_failed: BTreeMap<i32, &'a Pod>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(spec: &JobSpec, status: &JobStatus, pods: Vec<&'a Pod>) -> Tally<'a> {
        let active: Vec<&Pod> = pods.iter().copied().filter(|pod| pods::is_active(pod)).collect();
        let terminating = pods.iter().copied().filter(|pod| attempt::is_terminating(pod)).collect();
        let uncounted = Uncounted::of(status.uncounted_terminated_pods.as_ref());
        let is_indexed = attempt::is_indexed(spec);
        let valid = |pod: &&&Pod| !is_indexed || attempt::valid_index(spec, pod).is_some();
        let new = || pods.iter().filter(|pod| attempt::is_uncounted(pod) && !uncounted.has(pod)).filter(valid);
        let failed = new().filter(|pod| {
            let policy = spec.pod_failure_policy.as_ref();
            attempt::has_failed(spec, pod) && verdict(policy, pod) != Verdict::Ignore
        });
        let failed = count(status.failed.unwrap_or_default(), failed.count() + uncounted.failed.len());
        let succeeded = new().filter(|pod| attempt::has_succeeded(pod)).count() + uncounted.succeeded.len();
        let succeeded = count(status.succeeded.unwrap_or_default(), succeeded);
        let mut tally = Tally {
            active,
            terminating,
            succeeded,
            failed,
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            last_failed: BTreeMap::new(),
            pods,
        };
        if is_indexed {
            tally.by_index(spec, status);
        }
        tally
    }

    fn by_index(&mut self, spec: &JobSpec, status: &JobStatus) {
        let completions = spec.completions.unwrap_or_default();
        let uncounted = || self.pods.iter().copied().filter(|pod| attempt::is_uncounted(pod));
        let before = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
        let succeeded = uncounted().filter(|pod| attempt::has_succeeded(pod));
        let succeeded = before.with(succeeded.filter_map(|pod| attempt::valid_index(spec, pod)));
        let failed = spec.backoff_limit_per_index.map(|limit| {
            let before = Indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions);
            let failed = uncounted().filter(|pod| is_index_failed(spec, limit, pod));
            before.with(failed.filter_map(|pod| attempt::valid_index(spec, pod)))
        });
        if let Some(failed) = &failed {
            self.last_failed = self.last_failed(spec, &succeeded, failed);
        }
        self.succeeded = succeeded.len();
        self.succeeded_indexes = succeeded;
        self.failed_indexes = failed;
    }

    fn last_failed(&self, spec: &JobSpec, succeeded: &Indexes, failed: &Indexes) -> BTreeMap<i32, &'a Pod> {
        let active = attempt::indexes(self.active.iter().copied());
        let failures = |pod: &Pod| {
            let (counted, ignored) = attempt::failures_before(pod);
            (counted.saturating_add(ignored), backoff::ended_at(pod))
        };
        let mut last: BTreeMap<i32, &Pod> = BTreeMap::new();
        for pod in self.pods.iter().copied().filter(|pod| attempt::is_uncounted(pod) && attempt::has_failed(spec, pod))
        {
            let Some(index) = attempt::valid_index(spec, pod) else { continue };
            if succeeded.contains(index) || failed.contains(index) || active.contains(&index) {
                continue;
            }
            let other = last.entry(index).or_insert(pod);
            if failures(pod) >= failures(other) {
                *other = pod;
            }
        }
        last
    }
}

/// Whether a pod was the last that its index may have.
fn is_index_failed(spec: &JobSpec, limit: i32, pod: &Pod) -> bool {
    attempt::has_failed(spec, pod)
        && match verdict(spec.pod_failure_policy.as_ref(), pod) {
            Verdict::FailIndex => true,
            Verdict::Ignore => false,
            Verdict::Count | Verdict::FailJob(_) => attempt::failures_before(pod).0 >= limit,
        }
}

fn count(before: i32, more: usize) -> i32 {
    before.saturating_add(i32::try_from(more).unwrap_or(i32::MAX))
}

/// uids of pods that are about to be counted.
pub(super) struct Uncounted<'a> {
    succeeded: BTreeSet<&'a str>,
    failed: BTreeSet<&'a str>,
}

impl<'a> Uncounted<'a> {
    pub(super) fn of(listed: Option<&'a UncountedTerminatedPods>) -> Uncounted<'a> {
        let set = |uids: Option<&'a Vec<String>>| uids.into_iter().flatten().map(String::as_str).collect();
        Uncounted {
            succeeded: set(listed.and_then(|listed| listed.succeeded.as_ref())),
            failed: set(listed.and_then(|listed| listed.failed.as_ref())),
        }
    }

    /// Whether the pod is among them.
    pub(super) fn has(&self, pod: &Pod) -> bool {
        self.succeeded.contains(pod.uid()) || self.failed.contains(pod.uid())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.succeeded.len() + self.failed.len()
    }
}
