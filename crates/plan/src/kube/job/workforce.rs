//! Which pods a Job makes and which it lets go, so that as many run as are wanted.
//!
//! A pod's name is a function of the Job's uid, its index and a slot number, and the lowest free slots are taken: a plan
//! made from a World that has not yet heard of the pods of the last plan names the same ones again, which the API server
//! refuses, instead of more of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use knoll_api::{
    Key, Resource, Timestamp,
    k8s_openapi::{
        api::{
            batch::v1::{Job, JobSpec},
            core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodTemplateSpec},
        },
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    },
    labels::batch,
};

use super::{
    super::{hash, pods},
    attempt, backoff,
    failure_policy::{Verdict, verdict},
    tally::Tally,
};
use crate::{World, eventing::bind_pod};

/// Most pods one plan creates or deletes; the rest follows once these are seen.
pub(super) const BURST: usize = 500;
/// The variable that tells a container its index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Longest base of a pod's name.
const LONGEST_BASE: usize = 57;

/// What is to change.
#[derive(Default)]
pub(super) struct Change<'a> {
    /// Pods that are too much.
    pub(super) delete: Vec<&'a Pod>,
    /// Pods that are missing.
    pub(super) create: Vec<Pod>,
    /// When more are missing that may not be made yet: for how long.
    pub(super) pause: Option<Duration>,
}

/// What is to change so that as many pods run as are wanted: first what is too much goes, then what is missing comes.
pub(super) fn change<'a>(world: &World, job: &Job, spec: &JobSpec, tally: &Tally<'a>, now: Timestamp) -> Change<'a> {
    let active = tally.active.len();
    let wanted = wanted(spec, tally, active);
    let delete = surplus(spec, tally, active.saturating_sub(wanted));
    if !delete.is_empty() || spec.suspend == Some(true) {
        return Change { delete, ..Change::default() };
    }
    let going = if attempt::replaces_failed_only(spec) { tally.terminating.len() } else { 0 };
    let missing = wanted.saturating_sub(active + going).min(BURST);
    if missing == 0 {
        return Change::default();
    }
    if spec.backoff_limit_per_index.is_some() {
        return by_index(world, job, spec, tally, missing, now);
    }
    if let Some(pause) = pause(world, job, spec, tally, now) {
        return Change { pause: Some(pause), ..Change::default() };
    }
    let mut maker = Maker::new(world, job, spec);
    let create = if attempt::is_indexed(spec) {
        let indexes = pending(spec, tally, missing);
        indexes.into_iter().filter_map(|index| maker.make(Some((index, None)))).collect()
    } else {
        (0..missing).filter_map(|_| maker.make(None)).collect()
    };
    Change { create, ..Change::default() }
}

/// How many pods are to run.
fn wanted(spec: &JobSpec, tally: &Tally<'_>, active: usize) -> usize {
    let number = |count: i32| usize::try_from(count).unwrap_or_default();
    let parallelism = number(spec.parallelism.unwrap_or(1));
    match spec.completions {
        _ if spec.suspend == Some(true) => 0,
        Some(completions) => number(completions.saturating_sub(tally.succeeded)).min(parallelism),
        // The first success says that the work is done: what runs may end by itself.
        None if tally.succeeded > 0 => active,
        None => parallelism,
    }
}

/// The pods that go: those without an index of the Job's, all but one of each index, and then the least useful.
fn surplus<'a>(spec: &JobSpec, tally: &Tally<'a>, least: usize) -> Vec<&'a Pod> {
    let mut active = tally.active.clone();
    active.sort_by_cached_key(|pod| pods::usefulness(pod));
    let (mut go, mut stay) = (Vec::new(), active);
    if attempt::is_indexed(spec) {
        let mut newest: BTreeMap<i32, &str> = BTreeMap::new();
        for pod in &stay {
            if let Some(index) = attempt::valid_index(spec, pod) {
                newest.insert(index, pod.uid());
            }
        }
        let is_one = |pod: &&Pod| {
            attempt::valid_index(spec, pod).is_some_and(|index| newest.get(&index).is_some_and(|uid| *uid == pod.uid()))
        };
        (stay, go) = stay.into_iter().partition(is_one);
    }
    let more = least.saturating_sub(go.len());
    go.extend(stay.into_iter().take(more));
    go.truncate(BURST);
    go
}

/// What is left of the pause after failures; nothing when there is none.
fn pause(world: &World, job: &Job, spec: &JobSpec, tally: &Tally<'_>, now: Timestamp) -> Option<Duration> {
    // One that we let go ourselves, because too many ran, is no failure.
    let ended = |pod: &&&Pod| attempt::is_uncounted(pod) || !pod.is_deleting();
    let failed = || tally.pods.iter().filter(|pod| attempt::has_failed(spec, pod)).filter(ended).copied();
    let left = |succeeded: &mut dyn Iterator<Item = &Pod>| {
        let (failures, last) = backoff::since_success(failed(), succeeded)?;
        Some(backoff::left(failures, last, now)).filter(|left| !left.is_zero())
    };
    left(&mut std::iter::empty())?;
    // Only now is it worth reading all that ever succeeded.
    let owned: Vec<_> = world.pods.owned_by(job.uid()).filter(|pod| attempt::has_succeeded(pod)).collect();
    left(&mut owned.iter().map(AsRef::as_ref))
}

/// The first indexes that nobody works on and that neither succeeded nor failed.
fn pending(spec: &JobSpec, tally: &Tally<'_>, most: usize) -> Vec<i32> {
    let mut taken = tally.succeeded_indexes.with(attempt::indexes(tally.active.iter().copied()));
    if attempt::replaces_failed_only(spec) {
        taken = taken.with(attempt::indexes(tally.terminating.iter().copied()));
    }
    if let Some(failed) = &tally.failed_indexes {
        taken = taken.union(failed);
    }
    taken.missing(most, spec.completions.unwrap_or_default())
}

/// Where each index has its own attempts, each has its own pause.
fn by_index<'a>(
    world: &World,
    job: &Job,
    spec: &JobSpec,
    tally: &Tally<'a>,
    missing: usize,
    now: Timestamp,
) -> Change<'a> {
    let mut change = Change::default();
    let mut maker = Maker::new(world, job, spec);
    for index in pending(spec, tally, missing) {
        let replaced = tally.last_failed.get(&index).copied();
        let left = replaced.map_or(Duration::ZERO, |pod| {
            let (counted, ignored) = attempt::failures_before(pod);
            let failures = u32::try_from(counted.saturating_add(ignored).saturating_add(1)).unwrap_or(u32::MAX);
            backoff::left(failures, backoff::ended_at(pod), now)
        });
        if left.is_zero() {
            change.create.extend(maker.make(Some((index, Some(replaced)))));
        } else {
            change.pause = Some(change.pause.map_or(left, |other| other.min(left)));
        }
    }
    change
}

/// What a new pod works on: an index and, where each has attempts of its own, the pod it takes over from, if any.
type Work<'a> = (i32, Option<Option<&'a Pod>>);

/// Makes pods from the template.
struct Maker<'a> {
    world: &'a World,
    job: &'a Job,
    spec: &'a JobSpec,
    template: PodTemplateSpec,
    /// Names that were given out.
    names: BTreeSet<String>,
    /// The next slot to look at, where there are no indexes.
    slot: u64,
}

impl<'a> Maker<'a> {
    fn new(world: &'a World, job: &'a Job, spec: &'a JobSpec) -> Maker<'a> {
        let mut template = spec.template.clone();
        if let Some(pod) = &mut template.spec {
            if attempt::is_indexed(spec) {
                pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()).for_each(tell_index);
            }
            bind_pod(world, job, pod);
        }
        Maker { world, job, spec, template, names: BTreeSet::new(), slot: 0 }
    }

    /// A pod; nothing when every name is taken, which the length of one rules out.
    fn make(&mut self, work: Option<Work<'_>>) -> Option<Pod> {
        let (base, name) = self.name(work.map(|(index, _)| index))?;
        let template = self.template.metadata.clone().unwrap_or_default();
        let mut finalizers = template.finalizers.unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == batch::JOB_TRACKING) {
            finalizers.push(batch::JOB_TRACKING.to_owned());
        }
        let mut pod = Pod {
            metadata: ObjectMeta {
                generate_name: Some(base),
                name: Some(name),
                namespace: self.job.metadata.namespace.clone(),
                labels: template.labels,
                annotations: template.annotations,
                finalizers: Some(finalizers),
                owner_references: Some(vec![self.job.controller_reference()]),
                ..ObjectMeta::default()
            },
            spec: self.template.spec.clone(),
            status: None,
        };
        if let Some((index, replaced)) = work {
            self.assign(&mut pod, index, replaced);
        }
        Some(pod)
    }

    /// Base and name in the first free slot.
    fn name(&mut self, index: Option<i32>) -> Option<(String, String)> {
        let (job, uid) = (self.job.name(), self.job.uid());
        let base = index.map_or_else(|| job.to_owned(), |index| indexed_base(job, index));
        let mut slot = if index.is_some() { 0 } else { self.slot };
        loop {
            let number = slot.to_string();
            let name = match index {
                Some(index) => hash::name(&base, &[uid, &index.to_string(), &number]),
                None => hash::name(&base, &[uid, &number]),
            };
            slot = slot.checked_add(1)?;
            let key = Key::new(self.job.namespace(), name);
            if !self.world.pods.contains(&key) && self.names.insert(key.name.clone()) {
                if index.is_none() {
                    self.slot = slot;
                }
                return Some((format!("{base}-"), key.name));
            }
        }
    }

    fn assign(&self, pod: &mut Pod, index: i32, replaced: Option<Option<&Pod>>) {
        let number = index.to_string();
        pod.metadata.labels.get_or_insert_default().insert(batch::COMPLETION_INDEX.into(), number.clone());
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(batch::COMPLETION_INDEX.into(), number);
        if let Some(replaced) = replaced {
            let (failures, ignored) = replaced.map_or((0, 0), |pod| failures_after(self.spec, pod));
            annotations.insert(batch::INDEX_FAILURES.into(), failures.to_string());
            if ignored > 0 {
                annotations.insert(batch::INDEX_IGNORED_FAILURES.into(), ignored.to_string());
            }
        }
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(format!("{}-{index}", self.job.name()));
        }
    }
}

/// How often an index has failed, counted and not, with this failure of it.
fn failures_after(spec: &JobSpec, pod: &Pod) -> (i32, i32) {
    let (counted, ignored) = attempt::failures_before(pod);
    match verdict(spec.pod_failure_policy.as_ref(), pod) {
        Verdict::Ignore => (counted, ignored.saturating_add(1)),
        Verdict::Count | Verdict::FailIndex | Verdict::FailJob(_) => (counted.saturating_add(1), ignored),
    }
}

/// `job-index`, shortened before the index so that a suffix has room.
fn indexed_base(job: &str, index: i32) -> String {
    let end = format!("-{index}");
    let room = LONGEST_BASE.saturating_sub(end.len()).min(job.len());
    let room = (0..=room).rev().find(|at| job.is_char_boundary(*at)).unwrap_or_default();
    format!("{}{end}", &job[..room])
}

/// Has a container told its index, unless it says so itself.
fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{}']", batch::COMPLETION_INDEX),
            }),
            ..EnvVarSource::default()
        }),
    });
}
