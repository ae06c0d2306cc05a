//! CronJob → Jobs: one at each time of its schedule, under a name that says which.
//!
//! The name keeps a time from being run twice, whatever the World has not heard of yet. Of several times that passed
//! unseen only the newest is made up for; `startingDeadlineSeconds` says how late that may be. A schedule that changes is
//! looked at at once, and so is one that is no longer suspended.

mod schedule;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, tz::TimeZone};
use knoll_api::{
    Key, Kind, Resource, Timestamp, cron,
    k8s_openapi::{
        api::{
            batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
            core::v1::ObjectReference,
        },
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    },
    labels::batch,
};

use self::schedule::{Clockwork, Missed};
use super::job;
use crate::{Absence, EventType, Plan, Row, World, by_controller};

/// The controller's name.
pub(crate) const NAME: &str = "cron-job";

/// See the module.
pub(super) const ROW: Row = Row {
    name: NAME,
    of: Kind::CronJob,
    wakes: &[(Kind::Job, by_controller)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(cron) = world.cron_jobs.get(key) else { return plan };
    let Some(spec) = &cron.spec else { return plan };
    let jobs: Vec<Arc<Job>> = world.jobs.owned_by(cron.uid()).collect();
    let mut run =
        Run { world, cron: &cron, spec, now, status: cron.status.clone().unwrap_or_default(), plan: &mut plan };
    run.forget_old(&jobs);
    run.look_at(&jobs);
    if !cron.is_deleting() {
        run.start_due();
    }
    run.finish();
    plan
}

/// One look at a CronJob.
struct Run<'a> {
    world: &'a World,
    cron: &'a CronJob,
    spec: &'a CronJobSpec,
    now: Timestamp,
    status: CronJobStatus,
    plan: &'a mut Plan,
}

impl Run<'_> {
    /// Deletes finished Jobs beyond those that are to be kept, the oldest first.
    fn forget_old(&mut self, jobs: &[Arc<Job>]) {
        let ended = |well: bool| -> Vec<&Job> {
            let is = |job: &&Arc<Job>| job::end(job).is_some_and(|end| (end.type_ == "Complete") == well);
            jobs.iter().filter(is).map(AsRef::as_ref).collect()
        };
        let limits = [(true, self.spec.successful_jobs_history_limit), (false, self.spec.failed_jobs_history_limit)];
        for (well, limit) in limits {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let mut ended = ended(well);
            ended.sort_by_key(|job| {
                let start = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|at| at.0);
                (start.is_none(), start, job.name().to_owned())
            });
            let surplus = ended.len().saturating_sub(limit);
            ended.iter().take(surplus).filter(|job| !job.is_deleting()).for_each(|job| self.delete(job));
        }
    }

    fn delete(&mut self, job: &Job) {
        self.plan.delete(job);
        self.forget(job.uid());
        self.tell(EventType::Normal, "SuccessfulDelete", format!("Deleted job {}", job.name()));
    }

    /// Brings the list of active Jobs, and the time of the last success, up to date with what there is.
    fn look_at(&mut self, jobs: &[Arc<Job>]) {
        for job in jobs {
            let listed = self.active().any(|reference| reference.uid.as_deref() == Some(job.uid()));
            match job::end(job) {
                None if !listed && self.is_last(job) => self.list(job),
                None if !listed => {
                    let why = format!("Saw a job that the controller did not create or forgot: {}", job.name());
                    self.tell(EventType::Warning, "UnexpectedJob", why);
                }
                Some(end) if listed => {
                    let message = format!("Saw completed job: {}, condition: {}", job.name(), end.type_);
                    self.forget(job.uid());
                    self.tell(EventType::Normal, "SawCompletedJob", message);
                }
                _ => {}
            }
            if job::end(job).is_some_and(|end| end.type_ == "Complete") {
                let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
                let last = self.status.last_successful_time.as_ref().map(|at| at.0);
                if completed.as_ref().map(|at| at.0) > last {
                    self.status.last_successful_time = completed;
                }
            }
        }
        let there = |uid: Option<&str>| jobs.iter().any(|job| Some(job.uid()) == uid);
        let missing: Vec<ObjectReference> =
            self.active().filter(|reference| !there(reference.uid.as_deref())).cloned().collect();
        for reference in missing {
            self.forget(reference.uid.as_deref().unwrap_or_default());
            let name = reference.name.unwrap_or_default();
            self.tell(EventType::Normal, "MissingJob", format!("Active job went missing: {name}"));
        }
    }

    /// Starts the run that is due, if one is, and says when to look again.
    fn start_due(&mut self) {
        if self.spec.suspend == Some(true) {
            return;
        }
        let Some(clockwork) = self.clockwork() else { return };
        let due = match self.due(&clockwork) {
            Ok(due) => due,
            Err(why) => {
                let why = format!("invalid schedule: {} : {why}", self.spec.schedule);
                return self.tell(EventType::Warning, "InvalidSchedule", why);
            }
        };
        if let Some(due) = due {
            self.start(due, &clockwork.zone);
        }
        if let Some(left) = clockwork.until_next(self.since(), self.now) {
            self.plan.recheck_after(left);
        }
    }

    /// Its schedule; nothing when there is none to go by, which it tells.
    fn clockwork(&mut self) -> Option<Clockwork> {
        let zone = match self.spec.time_zone.as_deref().map(cron::time_zone) {
            Some(Err(_)) => {
                let name = self.spec.time_zone.clone().unwrap_or_default();
                let why = format!("invalid timeZone: {name:?}: unknown time zone {name}");
                self.tell(EventType::Warning, "UnknownTimeZone", why);
                return None;
            }
            Some(Ok(zone)) => zone,
            None => TimeZone::UTC,
        };
        match cron::parse_standard(&self.spec.schedule) {
            Ok(schedule) => Some(Clockwork { schedule, zone }),
            Err(why) => {
                let why = format!("unparseable schedule: {:?} : {why}", self.spec.schedule);
                self.tell(EventType::Warning, "UnparseableSchedule", why);
                None
            }
        }
    }

    /// Since when times count: since the last run, or since it was made.
    fn since(&self) -> Timestamp {
        let last = self.status.last_schedule_time.as_ref().or(self.cron.metadata.creation_timestamp.as_ref());
        last.map_or(self.now, |at| at.0)
    }

    /// The newest time that passed since the last run and may still be made up for.
    fn due(&mut self, clockwork: &Clockwork) -> Result<Option<Timestamp>, &'static str> {
        let mut since = self.since();
        if let Some(late) = self.latest_start() {
            since = since.max(self.now.checked_sub(late).unwrap_or(since));
        }
        let Missed { newest, many } = clockwork.missed(since, self.now)?;
        if many && newest.is_some() {
            let why = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.tell(EventType::Warning, "TooManyMissedTimes", why.to_owned());
        }
        Ok(newest)
    }

    fn latest_start(&self) -> Option<SignedDuration> {
        self.spec.starting_deadline_seconds.map(SignedDuration::from_secs)
    }

    fn start(&mut self, due: Timestamp, zone: &TimeZone) {
        let name = self.name_for(due);
        let listed = self.active().any(|reference| reference.name.as_deref() == Some(&name));
        let processed = self.status.last_schedule_time.as_ref().is_some_and(|at| at.0 == due);
        if listed || processed {
            return;
        }
        if self.latest_start().is_some_and(|late| due.checked_add(late).is_ok_and(|latest| latest < self.now)) {
            let why = format!("Missed scheduled time to start a job: {}", due.strftime("%a, %d %b %Y %H:%M:%S +0000"));
            return self.tell(EventType::Warning, "MissSchedule", why);
        }
        if let Some(job) = self.world.jobs.get(&self.cron.key().sibling(name.clone())) {
            return self.take_over(&job, due);
        }
        let is_busy = self.active().next().is_some();
        match self.spec.concurrency_policy.as_deref() {
            Some("Forbid") if is_busy => {
                let why = "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.tell(EventType::Normal, "JobAlreadyActive", why.to_owned());
            }
            Some("Replace") => self.replace(),
            _ => {}
        }
        self.create(name, due, zone);
    }

    /// A Job of that name is there already: it is the run, if it is ours.
    fn take_over(&mut self, job: &Job, due: Timestamp) {
        if job.is_controlled_by(self.cron) {
            self.status.last_schedule_time = Some(Time(due));
            if job::end(job).is_none() {
                self.list(job);
            }
        }
    }

    /// Deletes what still runs.
    fn replace(&mut self) {
        let names: Vec<String> = self.active().filter_map(|reference| reference.name.clone()).collect();
        for name in names {
            if let Some(job) = self.world.jobs.get(&self.cron.key().sibling(name)) {
                self.delete(&job);
            }
        }
    }

    fn create(&mut self, name: String, due: Timestamp, zone: &TimeZone) {
        let job = self.made(name.clone(), due, zone);
        let refusal = self.world.observed.refusals.get(&(Kind::Job, job.key()));
        if let Some(message) = refusal.map(|refusal| refusal.message.clone()) {
            self.tell(EventType::Warning, "FailedCreate", format!("Error creating job: {message}"));
        }
        self.plan.create(job);
        self.tell(EventType::Normal, "SuccessfulCreate", format!("Created job {name}"));
        self.status.last_schedule_time = Some(Time(due));
    }

    fn made(&self, name: String, due: Timestamp, zone: &TimeZone) -> Job {
        let template = self.spec.job_template.metadata.clone().unwrap_or_default();
        let mut annotations: BTreeMap<String, String> = template.annotations.unwrap_or_default();
        let due = due.to_zoned(zone.clone());
        let format = if due.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
        annotations.insert(batch::SCHEDULED.into(), due.strftime(format).to_string());
        Job {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: self.cron.metadata.namespace.clone(),
                labels: template.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![self.cron.controller_reference()]),
                ..ObjectMeta::default()
            },
            spec: self.spec.job_template.spec.clone(),
            status: None,
        }
    }

    /// Writes what was found.
    fn finish(mut self) {
        if self.status.active.as_ref().is_some_and(Vec::is_empty) {
            self.status.active = None;
        }
        if self.cron.status.clone().unwrap_or_default() != self.status {
            self.plan.status(self.cron, CronJob { status: Some(self.status), ..self.cron.clone() });
        }
    }

    /// `name-minutes`, the minutes since 1970.
    fn name_for(&self, due: Timestamp) -> String {
        format!("{}-{}", self.cron.name(), due.as_second().div_euclid(60))
    }

    /// Whether it is the newest run.
    fn is_last(&self, job: &Job) -> bool {
        self.status.last_schedule_time.as_ref().is_some_and(|at| self.name_for(at.0) == job.name())
    }

    fn active(&self) -> impl Iterator<Item = &ObjectReference> {
        self.status.active.iter().flatten()
    }

    fn list(&mut self, job: &Job) {
        self.status.active.get_or_insert_default().push(ObjectReference {
            api_version: Some(Kind::Job.api_version()),
            kind: Some(Kind::Job.kind().to_owned()),
            namespace: job.metadata.namespace.clone(),
            name: job.metadata.name.clone(),
            uid: job.metadata.uid.clone(),
            resource_version: job.metadata.resource_version.clone(),
            ..ObjectReference::default()
        });
    }

    fn forget(&mut self, uid: &str) {
        self.status.active.iter_mut().for_each(|active| active.retain(|one| one.uid.as_deref() != Some(uid)));
    }

    fn tell(&mut self, type_: EventType, reason: &str, message: String) {
        self.plan.event(self.cron, type_, reason, message);
    }
}
