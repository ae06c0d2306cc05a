//! A panic costs what panicked, and nothing else.

use std::time::Duration;

use jiff::Timestamp;
use knoll_faults::{Pauses, said};

/// Pauses before something that panicked begins again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Panics within [`WINDOW`] that put something into quarantine.
const PATIENCE: u32 = 5;
/// What lasted this long without a panic has recovered.
const WINDOW: Duration = Duration::from_secs(600);
/// First and longest quarantine.
const QUARANTINE: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(3600));

/// What a task ended with, if that was a panic.
pub(crate) fn of_task(error: tokio::task::JoinError) -> Option<String> {
    error.try_into_panic().ok().map(|panic| said(&*panic))
}

/// The pauses of something that has not panicked yet.
pub(crate) const fn pauses() -> Pauses {
    Pauses::new(PAUSE.0, PAUSE.1, WINDOW)
}

/// How often something panicked lately.
#[derive(Clone, Debug)]
pub(crate) struct PanicRecord {
    pauses: Pauses,
    recent: u32,
    last: Option<Timestamp>,
    quarantine: Option<Duration>,
}

/// What follows a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sentence {
    /// It begins again after this pause.
    Pause(Duration),
    /// It is left alone for this long.
    Quarantine(Duration),
}

impl Default for PanicRecord {
    fn default() -> PanicRecord {
        PanicRecord { pauses: pauses(), recent: 0, last: None, quarantine: None }
    }
}

impl PanicRecord {
    /// Takes a panic down.
    pub(crate) fn panicked(&mut self, now: Timestamp) -> Sentence {
        let quiet =
            self.last.map_or(Duration::MAX, |last| Duration::try_from(now.duration_since(last)).unwrap_or_default());
        self.last = Some(now);
        if quiet >= WINDOW.max(self.quarantine.unwrap_or_default() + WINDOW) {
            self.recent = 0;
            self.quarantine = None;
        }
        self.recent = self.recent.saturating_add(1);
        let pause = self.pauses.after(quiet);
        if self.recent < PATIENCE {
            return Sentence::Pause(pause);
        }
        let held = self.quarantine.map_or(QUARANTINE.0, |before| before.saturating_mul(2).min(QUARANTINE.1));
        self.quarantine = Some(held);
        Sentence::Quarantine(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn what_panics_again_and_again_is_left_alone_for_longer_and_longer() {
        let mut record = PanicRecord::default();
        let first: Vec<_> = (0..4).map(|second| record.panicked(at(second))).collect();
        let ms = |ms| Sentence::Pause(Duration::from_millis(ms));
        assert_eq!(first, [ms(100), ms(200), ms(400), ms(800)]);
        assert_eq!(record.panicked(at(4)), Sentence::Quarantine(QUARANTINE.0));
        assert_eq!(record.panicked(at(4 + 601)), Sentence::Quarantine(QUARANTINE.0 * 2));
        let much_later = 4 + 601 + 1201 + 601;
        assert_eq!(record.panicked(at(much_later)), ms(100));
    }
}
