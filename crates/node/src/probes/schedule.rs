//! When to ask, and what answers mean.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Has the container started? Failing for good restarts it.
    Startup,
    /// Does it take requests?
    Readiness,
    /// Is it alive? Failing restarts it.
    Liveness,
}

impl ProbeKind {
    /// Its name as messages begin with it.
    pub fn title(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Liveness => "Liveness",
        }
    }
}

/// Shortest pause between two askings before the first success.
const FIRST: Duration = Duration::from_micros(250);
/// The same, when each asking starts a process.
const FIRST_COSTLY: Duration = Duration::from_millis(10);
/// Such a pause is this part of the time that the container has taken so far: it is noticed when it comes up at most so
/// much later than it did.
const PART: u32 = 8;
/// Longest such pause while the container is young.
const YOUNG: Duration = Duration::from_millis(50);
/// The same, when each asking starts a process.
const YOUNG_COSTLY: Duration = Duration::from_millis(500);
/// A container that is not ready after this long is asked at its probe's period only.
const GROWN_UP: Duration = Duration::from_secs(60);

/// A probe's numbers, with their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Before the first asking.
    pub initial_delay: Duration,
    /// Between askings.
    pub period: Duration,
    /// For each answer.
    pub timeout: Duration,
    /// Answers in a row that make a yes.
    pub success_threshold: u32,
    /// Answers in a row that make a no.
    pub failure_threshold: u32,
}

impl Schedule {
    /// The numbers of a probe. A period of zero (Knative's "as fast as it can") is ten seconds once it is ready.
    pub fn of(probe: &Probe) -> Schedule {
        let number = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        let seconds = |value, default| Duration::from_secs(number(value, default).into());
        Schedule {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: number(probe.success_threshold, 1),
            failure_threshold: number(probe.failure_threshold, 3),
        }
    }
}

/// The course of one probe: answers in, verdicts and pauses out.
#[derive(Clone, Debug)]
pub struct Course {
    kind: ProbeKind,
    schedule: Schedule,
    costly: bool,
    verdict: Option<bool>,
    was_good: bool,
    successes: u32,
    failures: u32,
    counted_failure_at: Option<Duration>,
}

impl Course {
    /// A course that has not begun.
    pub fn new(kind: ProbeKind, schedule: Schedule, costly: bool) -> Course {
        Course {
            kind,
            schedule,
            costly,
            verdict: None,
            was_good: false,
            successes: 0,
            failures: 0,
            counted_failure_at: None,
        }
    }

    /// Takes an answer that came `age` after the course began. Returns the verdict if it changed: yes when enough
    /// answers in a row were, no when enough were not. Askings that come faster than the period count as one failure
    /// a period, so that asking early never condemns early.
    pub fn answer(&mut self, good: bool, age: Duration) -> Option<bool> {
        if good {
            self.successes += 1;
            self.failures = 0;
            self.counted_failure_at = None;
        } else {
            self.successes = 0;
            let due = self.counted_failure_at.is_none_or(|at| age.saturating_sub(at) + FIRST >= self.schedule.period);
            if due {
                self.failures += 1;
                self.counted_failure_at = Some(age);
            }
        }
        let verdict = if good {
            (self.successes >= self.schedule.success_threshold).then_some(true)
        } else {
            (self.failures >= self.schedule.failure_threshold).then_some(false)
        };
        if verdict.is_none() || verdict == self.verdict {
            return None;
        }
        self.verdict = verdict;
        self.was_good |= good;
        verdict
    }

    /// How long to wait before asking again, `age` after the course began. While it is waited for, `sharing` containers
    /// share a processor.
    pub fn pause(&self, age: Duration, sharing: u32) -> Duration {
        let eager = self.kind != ProbeKind::Liveness && !self.was_good && age < GROWN_UP;
        if !eager {
            return self.schedule.period;
        }
        let (first, longest) = if self.costly { (FIRST_COSTLY, YOUNG_COSTLY) } else { (FIRST, YOUNG) };
        ((age / PART).max(first) * sharing).min(longest).min(self.schedule.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(success: u32, failure: u32) -> Schedule {
        Schedule {
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            success_threshold: success,
            failure_threshold: failure,
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn who_shares_a_processor_is_asked_less_often_until_it_is_there() {
        let mut course = Course::new(ProbeKind::Readiness, schedule(1, 3), false);
        assert_eq!(course.pause(ms(0), 50), FIRST * 50);
        assert_eq!(course.pause(ms(20), 50), YOUNG, "and not less often than ever");
        course.answer(true, ms(2));
        assert_eq!(course.pause(ms(2), 50), ms(1000));
    }

    #[test]
    fn numbers_have_the_usual_defaults() {
        let of = Schedule::of(&Probe::default());
        assert_eq!((of.period, of.timeout, of.success_threshold, of.failure_threshold), (ms(10_000), ms(1000), 1, 3));
        let of = Schedule::of(&Probe { period_seconds: Some(0), failure_threshold: Some(0), ..Probe::default() });
        assert_eq!((of.period, of.failure_threshold), (ms(10_000), 3));
    }

    #[test]
    fn readiness_is_asked_eagerly_until_the_first_yes() {
        let mut course = Course::new(ProbeKind::Readiness, schedule(1, 3), false);
        assert_eq!(course.pause(ms(0), 1), Duration::from_micros(250));
        assert_eq!(course.pause(ms(16), 1), ms(2), "it is noticed an eighth later than it came up, at most");
        assert_eq!(course.pause(ms(1000), 1), ms(50));
        assert_eq!(course.pause(ms(61_000), 1), ms(1000));
        assert_eq!(course.answer(true, ms(3)), Some(true));
        assert_eq!(course.pause(ms(4), 1), ms(1000));
    }

    #[test]
    fn asking_often_does_not_condemn_early() {
        let mut course = Course::new(ProbeKind::Startup, schedule(1, 2), false);
        assert_eq!(course.answer(false, ms(0)), None);
        for at in 1..999 {
            assert_eq!(course.answer(false, ms(at)), None);
        }
        assert_eq!(course.answer(false, ms(1000)), Some(false));
    }

    #[test]
    fn verdicts_need_answers_in_a_row_and_are_told_once() {
        let mut course = Course::new(ProbeKind::Readiness, schedule(2, 2), false);
        assert_eq!(course.answer(true, ms(0)), None);
        assert_eq!(course.answer(false, ms(1000)), None);
        assert_eq!(course.answer(true, ms(2000)), None);
        assert_eq!(course.answer(true, ms(3000)), Some(true));
        assert_eq!(course.answer(true, ms(4000)), None);
        assert_eq!(course.answer(false, ms(5000)), None);
        assert_eq!(course.answer(false, ms(6000)), Some(false));
        assert_eq!(course.answer(true, ms(7000)), None);
        assert_eq!(course.answer(true, ms(8000)), Some(true));
    }

    #[test]
    fn liveness_keeps_its_period() {
        let course = Course::new(ProbeKind::Liveness, schedule(1, 3), false);
        assert_eq!(course.pause(ms(0), 1), ms(1000));
    }
}
