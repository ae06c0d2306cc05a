//! Which run of a CronJob is due, and when to look again.

use std::time::Duration;

use jiff::{SignedDuration, tz::TimeZone};
use knoll_api::{Timestamp, cron::Schedule};

/// Beyond so many missed times somebody should look: a clock may be wrong.
const MANY: i64 = 100;
/// Looked at so long after a run is due, for a clock that is a little behind.
const LATE: Duration = Duration::from_millis(100);

/// A schedule that never comes round.
pub(super) const NEVER: &str = "time difference between two schedules is less than 1 second";

/// What was missed since the last run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missed {
    /// The last time that has passed; nothing when none has.
    pub(super) newest: Option<Timestamp>,
    /// Whether more passed than anybody would want to be told one by one.
    pub(super) many: bool,
}

/// A schedule in a time zone.
pub(super) struct Clockwork {
    pub(super) schedule: Schedule,
    pub(super) zone: TimeZone,
}

impl Clockwork {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next_after(after, &self.zone)
    }

    /// The times after `since` that have passed by `now`. They are not gone through one by one: there may be years of them.
    ///
    /// # Errors
    /// When there never is another time.
    pub(super) fn missed(&self, since: Timestamp, now: Timestamp) -> Result<Missed, &'static str> {
        let none = Missed { newest: None, many: false };
        let first = self.next(since).ok_or(NEVER)?;
        let second = self.next(first).ok_or(NEVER)?;
        if now < first {
            return Ok(none);
        }
        if now < second {
            return Ok(Missed { newest: Some(first), ..none });
        }
        let interval = second.duration_since(first).as_secs();
        let count = now.duration_since(first).as_secs() / interval.max(1) + 1;
        // Two intervals before the newest, if all were alike; those that are not are gone through from there.
        let back = interval.saturating_mul(count - 2);
        let mut at = first.checked_add(SignedDuration::from_secs(back)).map_err(|_| NEVER)?;
        let mut newest = None;
        while let Some(next) = self.next(at).filter(|next| *next <= now) {
            newest = Some(next);
            at = next;
        }
        Ok(Missed { newest, many: count > MANY })
    }

    /// How long until the next run is due; nothing when none ever is.
    pub(super) fn until_next(&self, since: Timestamp, now: Timestamp) -> Option<Duration> {
        let from = match self.missed(since, now) {
            Ok(Missed { newest: Some(newest), .. }) => newest,
            Ok(_) if self.next(since).is_some_and(|first| first > now) => since,
            _ => now,
        };
        let left = self.next(from)?.duration_since(now);
        Some(Duration::try_from(left).unwrap_or_default().saturating_add(LATE))
    }
}

#[cfg(test)]
mod tests {
    use knoll_api::cron;

    use super::*;

    fn every(text: &str) -> Clockwork {
        Clockwork { schedule: cron::parse_standard(text).expect("a schedule"), zone: TimeZone::UTC }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn the_newest_time_that_has_passed_is_found_at_any_distance() {
        let newest = |text: &str, since: &str, now: &str| every(text).missed(at(since), at(now)).expect("one").newest;
        let noon = "2026-11-30T12:00:00Z";
        assert_eq!(newest("0 * * * *", noon, "2026-11-30T12:59:59Z"), None);
        assert_eq!(newest("0 * * * *", noon, "2026-11-30T13:00:00Z"), Some(at("2026-11-30T13:00:00Z")));
        assert_eq!(newest("0 * * * *", noon, "2026-11-30T16:20:00Z"), Some(at("2026-11-30T16:00:00Z")));
        assert_eq!(newest("*/10 * * * *", "2016-11-30T12:00:00Z", noon), Some(at(noon)));
        assert_eq!(newest("30 6-16/4 * * 1-5", "2026-11-27T15:00:00Z", noon), Some(at("2026-11-30T10:30:00Z")));
        assert_eq!(newest("@every 1h", "2026-11-30T08:20:00Z", noon), Some(at("2026-11-30T11:20:00Z")));
        assert_eq!(newest("* 9 * * *", "2026-10-30T09:58:30Z", noon), Some(at("2026-11-30T09:59:00Z")));
    }

    #[test]
    fn more_than_a_hundred_are_many() {
        let many = |minutes: i64| {
            let now = at("2026-11-30T12:00:00Z") + SignedDuration::from_mins(minutes);
            every("* * * * *").missed(at("2026-11-30T12:00:00Z"), now).expect("some").many
        };
        assert!(!many(100) && many(101));
        assert_eq!(every("0 0 30 2 *").missed(at("2026-11-30T12:00:00Z"), at("2026-11-30T12:00:00Z")), Err(NEVER));
    }

    #[test]
    fn it_is_looked_at_again_just_after_the_next_time() {
        let until = |text: &str, since: &str, now: &str| every(text).until_next(at(since), at(now));
        let after = |seconds: u64| Some(Duration::from_secs(seconds) + LATE);
        let noon = "2026-11-30T12:00:00Z";
        assert_eq!(until("0 * * * *", noon, "2026-11-30T12:30:00Z"), after(1800));
        assert_eq!(until("0 * * * *", noon, "2026-11-30T17:59:00Z"), after(60));
        assert_eq!(until("@every 50s", noon, "2026-11-30T12:00:20Z"), after(30));
        assert_eq!(until("0 0 30 2 *", noon, noon), None);
    }
}
