//! Whether a Job ends, how, and why: what was decided before stays, then come failures, then successes.

use std::time::Duration;

use knoll_api::{
    Timestamp, clock,
    k8s_openapi::{
        api::{
            batch::v1::{JobSpec, JobStatus, SuccessPolicyRule},
            core::v1::Pod,
        },
        apimachinery::pkg::apis::meta::v1::Time,
    },
};

use super::{
    super::pods,
    attempt,
    conditions::{self, COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED},
    failure_policy::{Verdict, verdict},
    indexes::Indexes,
    tally::Tally,
};

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// Whether it succeeded.
    pub(super) well: bool,
    /// One word, and more for people.
    pub(super) reason: String,
    pub(super) message: String,
}

impl Ending {
    fn new(well: bool, reason: &str, message: impl Into<String>) -> Ending {
        Ending { well, reason: reason.to_owned(), message: message.into() }
    }

    /// What was decided, or follows from its pods and the time.
    pub(super) fn of(spec: &JobSpec, status: &JobStatus, tally: &Tally<'_>, now: Timestamp) -> Option<Ending> {
        decided(status)
            .or_else(|| by_failure_policy(spec, tally))
            .or_else(|| by_limits(spec, status, tally, now))
            .or_else(|| by_failed_indexes(spec, tally))
            .or_else(|| by_success_policy(spec, &tally.succeeded_indexes))
    }

    /// Whether as many have succeeded as are asked for, while none runs; one is enough where no number is asked for.
    pub(super) fn by_completions(spec: &JobSpec, succeeded: i32, running: usize) -> Option<Ending> {
        let enough = spec.completions.map_or(succeeded > 0, |completions| succeeded >= completions);
        let message = "Reached expected number of succeeded pods";
        (enough && running == 0).then(|| Ending::new(true, "CompletionsReached", message))
    }

    /// Writes that it is decided.
    pub(super) fn note(&self, status: &mut JobStatus, now: Timestamp) {
        let type_ = if self.well { SUCCESS_CRITERIA_MET } else { FAILURE_TARGET };
        conditions::set(status, type_, &self.reason, &self.message, now);
    }

    /// Writes that it has come to pass.
    pub(super) fn seal(&self, status: &mut JobStatus, now: Timestamp) {
        let type_ = if self.well { COMPLETE } else { FAILED };
        conditions::set(status, type_, &self.reason, &self.message, now);
        if self.well {
            // Not before it began, wherever the clock was set since.
            let start = status.start_time.as_ref().map_or(now, |start| start.0);
            status.completion_time = Some(Time(now.max(start)));
        }
    }
}

/// How long until it has run for longer than it may; nothing when it may for ever, or does not run. What goes on after a
/// suspension has its time anew, once that is noted.
pub(super) fn until_deadline(spec: &JobSpec, status: &JobStatus, now: Timestamp) -> Option<Duration> {
    let seconds = u64::try_from(spec.active_deadline_seconds?).ok()?;
    let is_suspended = spec.suspend == Some(true) || conditions::holding(status, SUSPENDED).is_some();
    let start = status.start_time.as_ref().filter(|_| !is_suspended)?;
    Some(Duration::from_secs(seconds).saturating_sub(clock::elapsed(start.0, now)))
}

fn decided(status: &JobStatus) -> Option<Ending> {
    let of = |type_: &str, well: bool| {
        let condition = conditions::holding(status, type_)?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some(Ending { well, reason: text(&condition.reason), message: text(&condition.message) })
    };
    of(SUCCESS_CRITERIA_MET, true).or_else(|| of(FAILURE_TARGET, false))
}

fn by_failure_policy(spec: &JobSpec, tally: &Tally<'_>) -> Option<Ending> {
    let policy = spec.pod_failure_policy.as_ref();
    policy?;
    let failed = tally.pods.iter().filter(|pod| attempt::has_failed(spec, pod));
    failed.into_iter().find_map(|pod| match verdict(policy, pod) {
        Verdict::FailJob(why) => Some(Ending::new(false, "PodFailurePolicy", why)),
        _ => None,
    })
}

fn by_limits(spec: &JobSpec, status: &JobStatus, tally: &Tally<'_>, now: Timestamp) -> Option<Ending> {
    let limit = spec.backoff_limit.unwrap_or(6);
    if tally.failed > limit || restarts_exceed(spec, limit, &tally.pods) {
        return Some(Ending::new(false, "BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    let late = until_deadline(spec, status, now).is_some_and(|left| left.is_zero());
    late.then(|| Ending::new(false, "DeadlineExceeded", "Job was active longer than specified deadline"))
}

/// Where containers are restarted in their pods, each restart is a failure.
fn restarts_exceed(spec: &JobSpec, limit: i32, pods: &[&Pod]) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let running = pods.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
    let statuses = running.filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    let restarts = statuses.fold(0_i32, |count, status| count.saturating_add(status.restart_count));
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn by_failed_indexes(spec: &JobSpec, tally: &Tally<'_>) -> Option<Ending> {
    let failed = tally.failed_indexes.as_ref().map(Indexes::len).filter(|failed| *failed > 0)?;
    if spec.max_failed_indexes.is_some_and(|most| failed > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Ending::new(false, "MaxFailedIndexesExceeded", message));
    }
    let over = failed.saturating_add(tally.succeeded_indexes.len()) >= spec.completions.unwrap_or_default();
    over.then(|| Ending::new(false, "FailedIndexes", "Job has failed indexes"))
}

fn by_success_policy(spec: &JobSpec, succeeded: &Indexes) -> Option<Ending> {
    let rules = &spec.success_policy.as_ref().filter(|_| !succeeded.is_empty())?.rules;
    let at = rules.iter().position(|rule| meets(rule, spec.completions.unwrap_or_default(), succeeded))?;
    Some(Ending::new(true, "SuccessPolicy", format!("Matched rules at index {at}")))
}

/// Whether as many indexes have succeeded as a rule asks for, of those it names.
fn meets(rule: &SuccessPolicyRule, completions: i32, succeeded: &Indexes) -> bool {
    let Some(named) = &rule.succeeded_indexes else {
        return rule.succeeded_count.is_some_and(|count| succeeded.len() >= count);
    };
    let named = Indexes::parse(named, completions);
    let shared = named.shared(succeeded);
    !named.is_empty() && (shared == named.len() || rule.succeeded_count.is_some_and(|count| shared >= count))
}
