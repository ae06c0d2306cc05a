//! Job → pods: as many at a time as it allows, until as many as it asks for have succeeded or it has failed.
//!
//! How a Job ends is decided once: `SuccessCriteriaMet` or `FailureTarget` is written before its pods go, and `Complete`
//! or `Failed` when all of them are gone and counted ([`tracking`]). A Job that has ended goes after its time to live.
//!
//! How long ago pods failed is read from the pods. One that somebody deleted is forgotten with it: what takes its place
//! may come sooner than after the usual pause.

mod attempt;
mod backoff;
mod conditions;
mod ending;
mod failure_policy;
mod indexes;
mod release;
mod tally;
mod tracking;
mod workforce;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    time::Duration,
};

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp, clock,
    k8s_openapi::{
        api::{
            batch::v1::{Job, JobSpec, JobStatus},
            core::v1::Pod,
        },
        apimachinery::pkg::apis::meta::v1::Time,
    },
    labels::batch,
};

pub(super) use self::conditions::end;
pub(super) use self::release::ROW as RELEASE;
use self::{
    ending::Ending,
    tally::Tally,
    tracking::{Stage, some},
};
use super::{pods, selector};
use crate::{
    Absence, EventType, Plan, Propagation, Row, Want, World, by_controller,
    terms::{leads_to, selectors_of},
};

/// See the module.
pub(super) const ROW: Row = Row {
    name: "job",
    of: Kind::Job,
    wakes: &[(Kind::Pod, by_controller), (Kind::Pod, by_selector)],
    configs: &[],
    // What its pods are told of where events go.
    reads: &[Kind::SinkBinding, Kind::ConfigMap],
    absence: Absence::TurnsOffFor(&[Kind::Job, Kind::Pod]),
    plan,
};

/// Jobs that could take in a pod without a controller.
fn by_selector(world: &World, object: &Object, _of: Kind) -> Vec<Key> {
    let meta = object.meta();
    if meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true)) {
        return Vec::new();
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let jobs = selectors_of(namespace, meta.labels.as_ref()).flat_map(|term| world.jobs.find(term));
    let picking = jobs.filter(|job| job.namespace() == namespace && picks(spec(job), object.meta().labels.as_ref()));
    picking.map(|job| job.key()).collect()
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(job) = world.jobs.get(key) else { return plan };
    let job = job.as_ref();
    if let Some(end) = conditions::end(job) {
        expire(&mut plan, job, end.last_transition_time.as_ref().map(|at| at.0), now);
        return plan;
    }
    if attempt::is_managed_elsewhere(job) {
        return plan;
    }
    let (owned, strangers) = pods_of(world, job);
    if !job.is_deleting() {
        claim(&mut plan, job, strangers);
        if !plan.is_empty() {
            // Counted once they are seen to be ours.
            return plan;
        }
    }
    let owned: Vec<&Pod> = owned.iter().map(AsRef::as_ref).collect();
    Sync { world, job, spec: spec(job), now: pods::whole_seconds(now), exact: now }.plan(&mut plan, owned);
    plan
}

/// What is wanted of a Job; nothing when it does not say.
fn spec(job: &Job) -> &JobSpec {
    static EMPTY: LazyLock<JobSpec> = LazyLock::new(JobSpec::default);
    job.spec.as_ref().unwrap_or(&EMPTY)
}

fn picks(spec: &JobSpec, labels: Option<&BTreeMap<String, String>>) -> bool {
    spec.selector.as_ref().is_some_and(|wanted| selector::picks(wanted, labels))
}

/// Deletes what has ended, once its time to live is over.
fn expire(plan: &mut Plan, job: &Job, ended: Option<Timestamp>, now: Timestamp) {
    let Some(seconds) = spec(job).ttl_seconds_after_finished.and_then(|seconds| u64::try_from(seconds).ok()) else {
        return;
    };
    let Some(ended) = ended.filter(|_| !job.is_deleting()) else { return };
    let left = Duration::from_secs(seconds).saturating_sub(clock::elapsed(ended, now));
    if !left.is_zero() {
        plan.recheck_after(left);
        return;
    }
    plan.wants.push(Want::Delete {
        kind: Kind::Job,
        key: job.key(),
        uid: job.uid().to_owned(),
        grace_seconds: None,
        propagation: Propagation::Foreground,
    });
}

/// A pod to take in (`true`) or to let go (`false`).
type Stranger = (Arc<Pod>, bool);

/// The pods it controls and still picks, without those that were counted as successes; and those to take in or let go.
fn pods_of(world: &World, job: &Job) -> (Vec<Arc<Pod>>, Vec<Stranger>) {
    let matches = |pod: &Pod| picks(spec(job), pod.meta().labels.as_ref());
    let key = job.key();
    let (mut owned, mut strangers) = (Vec::new(), Vec::new());
    for pod in world.pods.find(leads_to(Kind::Job, &key)) {
        if pod.namespace() != key.namespace || !pod.is_controlled_by(job) {
            continue;
        }
        if matches(&pod) {
            owned.push(pod);
        } else if !pod.is_deleting() {
            strangers.push((pod, false));
        }
    }
    let orphans = world.pods.uncontrolled(job.namespace());
    strangers.extend(orphans.filter(|pod| !pod.is_deleting() && matches(pod)).map(|pod| (pod, true)));
    (owned, strangers)
}

fn claim(plan: &mut Plan, job: &Job, strangers: Vec<Stranger>) {
    for (pod, take) in strangers {
        let mut wanted = if take { Pod::clone(&pod) } else { attempt::counted(&pod) };
        let owners = wanted.metadata.owner_references.get_or_insert_default();
        owners.retain(|owner| owner.uid != job.uid());
        if take {
            owners.push(job.controller_reference());
            if !attempt::is_uncounted(&pod) {
                wanted.metadata.finalizers.get_or_insert_default().push(batch::JOB_TRACKING.to_owned());
            }
        }
        plan.update(pod.as_ref(), wanted);
    }
}

/// One look at a Job that has not ended.
struct Sync<'a> {
    world: &'a World,
    job: &'a Job,
    spec: &'a JobSpec,
    /// In whole seconds, as the API stores times.
    now: Timestamp,
    exact: Timestamp,
}

impl Sync<'_> {
    fn plan(&self, plan: &mut Plan, owned: Vec<&Pod>) {
        let mut status = self.job.status.clone().unwrap_or_default();
        tracking::settle(&mut status, &owned);
        let tally = Tally::new(self.spec, &status, owned);
        let suspended = self.spec.suspend == Some(true);
        if status.start_time.is_none() && !suspended {
            status.start_time = Some(Time(self.now));
        }
        // Events follow what they tell of.
        let mut said = Plan::nothing();
        let mut ending = Ending::of(self.spec, &status, &tally, self.exact);
        let mut change = workforce::Change::default();
        if ending.is_some() {
            change.delete = tally.active.iter().copied().take(workforce::BURST).collect();
        } else {
            self.watch_deadline(plan, &status);
            if !self.job.is_deleting() {
                change = workforce::change(self.world, self.job, self.spec, &tally, self.exact);
            }
            let runs = tally.active.len() - change.delete.len() + change.create.len();
            ending = Ending::by_completions(self.spec, tally.succeeded, runs);
            if ending.is_none() && !self.job.is_deleting() {
                self.note_suspension(&mut said, &mut status, suspended);
            }
        }
        change.pause.into_iter().for_each(|pause| plan.recheck_after(pause));
        let stage = self.stage(ending.as_ref());
        let released = tracking::list(self.spec, &mut status, &tally, stage);
        self.count(&mut status, &tally, &change);
        if let Some(ending) = &ending {
            ending.note(&mut status, self.now);
            let all_ended = tally.active.is_empty() && tally.terminating.is_empty() && change.delete.is_empty();
            if all_ended && released.is_empty() {
                self.end(&mut said, &mut status, ending);
            }
        }
        plan.status(self.job, Job { status: Some(status), ..self.job.clone() });
        plan.wants.append(&mut said.wants);
        released.iter().for_each(|pod| plan.update(*pod, attempt::counted(pod)));
        self.let_go(plan, &change.delete, stage);
        self.make(plan, change);
    }

    /// Asks to be looked at again when it will have run for too long.
    fn watch_deadline(&self, plan: &mut Plan, status: &JobStatus) {
        if let Some(left) = ending::until_deadline(self.spec, status, self.exact) {
            plan.recheck_after(left);
        }
    }

    /// Says that it is suspended or goes on; what goes on begins its time anew.
    fn note_suspension(&self, plan: &mut Plan, status: &mut JobStatus, suspended: bool) {
        if !conditions::set_suspended(status, suspended, self.now) {
            return;
        }
        if suspended {
            plan.event(self.job, EventType::Normal, "Suspended", "Job suspended");
        } else {
            status.start_time = Some(Time(self.now));
            plan.event(self.job, EventType::Normal, "Resumed", "Job resumed");
        }
    }

    fn stage(&self, ending: Option<&Ending>) -> Stage {
        match ending {
            Some(ending) if !ending.well => Stage::Failing,
            Some(_) => Stage::Leaving,
            None if self.job.is_deleting() => Stage::Leaving,
            None => Stage::Running,
        }
    }

    /// Writes how many run, are ready and are going, and which indexes ended.
    fn count(&self, status: &mut JobStatus, tally: &Tally<'_>, change: &workforce::Change<'_>) {
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let going: BTreeSet<&str> = change.delete.iter().map(|pod| pod.uid()).collect();
        let stays = |pod: &&&Pod| !going.contains(pod.uid());
        let (refused, deleted) = (self.refusal(change).is_some(), change.delete.len());
        let created = if refused { 0 } else { change.create.len() };
        status.active = some(number(tally.active.len() - deleted + created));
        status.ready = Some(number(tally.active.iter().filter(stays).filter(|pod| pods::is_ready(pod)).count()));
        status.terminating = Some(number(tally.terminating.len() + deleted));
        if attempt::is_indexed(self.spec) {
            status.succeeded = some(tally.succeeded);
            status.completed_indexes = Some(tally.succeeded_indexes.to_string()).filter(|text| !text.is_empty());
            status.failed_indexes = tally.failed_indexes.as_ref().map(ToString::to_string);
        }
    }

    /// Ends it, when everything is counted.
    fn end(&self, said: &mut Plan, status: &mut JobStatus, ending: &Ending) {
        let listed = status.uncounted_terminated_pods.as_ref();
        if listed.is_some_and(|listed| listed.succeeded.is_some() || listed.failed.is_some()) {
            return;
        }
        ending.seal(status, self.now);
        if !ending.well {
            return said.event(self.job, EventType::Warning, &ending.reason, ending.message.clone());
        }
        if self.spec.completions.is_some_and(|completions| status.succeeded.unwrap_or_default() > completions) {
            let why = "Too many succeeded pods running after completion count reached";
            said.event(self.job, EventType::Warning, "TooManySucceededPods", why);
        }
        said.event(self.job, EventType::Normal, "Completed", "Job completed");
    }

    /// Lets pods go. What goes while the Job goes on is only too much, and not counted.
    fn let_go(&self, plan: &mut Plan, pods: &[&Pod], stage: Stage) {
        for pod in pods {
            if stage == Stage::Running && attempt::is_uncounted(pod) {
                plan.update(*pod, attempt::counted(pod));
            }
            plan.delete(*pod);
            plan.event(self.job, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
        }
    }

    fn make(&self, plan: &mut Plan, change: workforce::Change<'_>) {
        if let Some(message) = self.refusal(&change) {
            plan.event(self.job, EventType::Warning, "FailedCreate", format!("Error creating: {message}"));
        }
        for pod in change.create {
            let name = pod.name().to_owned();
            plan.create(pod);
            plan.event(self.job, EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
        }
    }

    /// Why a pod that is to be made was refused last time.
    fn refusal(&self, change: &workforce::Change<'_>) -> Option<String> {
        let refusals = &self.world.observed.refusals;
        change
            .create
            .iter()
            .find_map(|pod| refusals.get(&(Kind::Pod, pod.key())))
            .map(|refusal| refusal.message.clone())
    }
}
