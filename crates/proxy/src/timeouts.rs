//! When a request's time is up.
//!
//! Three clocks. `timeout` is for the whole exchange, an upgraded connection included. `response start` counts only
//! while nothing has been written; a 101 is the start of an answer as any other. `idle` counts from the last write of
//! the instance, and from the start while there was none; what an upgraded connection carries counts as well.

use std::time::Duration;

use knoll_api::table::RevisionPolicy;
use tokio::time::Instant;

/// The clocks of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    total: Option<Instant>,
    idle: Option<Duration>,
    before_response: Option<Instant>,
}

impl Timeouts {
    /// The clocks of a request that started at `start`. A zero length is no clock.
    pub(crate) fn new(start: Instant, policy: Option<&RevisionPolicy>) -> Self {
        let set = |length: Option<Duration>| length.filter(|length| !length.is_zero());
        let total = set(policy.map(|policy| policy.timeout)).map(|length| start + length);
        let idle = set(policy.and_then(|policy| policy.idle_timeout));
        let response = set(policy.and_then(|policy| policy.response_start_timeout));
        let first = [response, idle].into_iter().flatten().min().map(|length| start + length);
        Self { total, idle, before_response: earlier(total, first) }
    }

    /// When a request without a written response is given up.
    pub(crate) fn before_response(&self) -> Option<Instant> {
        self.before_response
    }

    /// When the whole exchange must have ended.
    pub(crate) fn total(&self) -> Option<Instant> {
        self.total
    }

    /// When a response whose last write was at `last_write` is given up.
    pub(crate) fn after_write(&self, last_write: impl FnOnce() -> Instant) -> Option<Instant> {
        earlier(self.total, self.idle.map(|idle| last_write() + idle))
    }

    /// Whether the time between writes is limited, so that someone must note when they were.
    pub(crate) fn watches_writes(&self) -> bool {
        self.idle.is_some()
    }
}

fn earlier(one: Option<Instant>, two: Option<Instant>) -> Option<Instant> {
    match (one, two) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(timeout: u64, response_start: Option<u64>, idle: Option<u64>) -> RevisionPolicy {
        RevisionPolicy {
            timeout: Duration::from_secs(timeout),
            response_start_timeout: response_start.map(Duration::from_secs),
            idle_timeout: idle.map(Duration::from_secs),
            ..RevisionPolicy::default()
        }
    }

    #[track_caller]
    fn check(policy: RevisionPolicy, before: Option<u64>, after_write_at_50: Option<u64>) {
        let start = Instant::now();
        let timeouts = Timeouts::new(start, Some(&policy));
        let since = |at: Option<Instant>| at.map(|at| (at - start).as_secs());
        assert_eq!(since(timeouts.before_response()), before);
        let wrote = start + Duration::from_secs(50);
        assert_eq!(since(timeouts.after_write(|| wrote)), after_write_at_50);
    }

    #[test]
    fn the_earliest_clock_counts() {
        check(policy(300, None, None), Some(300), Some(300));
        check(policy(300, Some(20), None), Some(20), Some(300));
        check(policy(300, None, Some(30)), Some(30), Some(80));
        check(policy(300, Some(20), Some(30)), Some(20), Some(80));
        check(policy(60, Some(20), Some(30)), Some(20), Some(60));
    }

    #[test]
    fn zero_is_off() {
        check(policy(0, Some(0), Some(0)), None, None);
    }

    #[test]
    fn a_service_without_a_revision_has_no_clock() {
        assert!(Timeouts::new(Instant::now(), None).before_response().is_none());
    }
}
