//! The pause before a container runs again.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// First pause.
pub(crate) const FIRST: Duration = Duration::from_secs(10);
/// Longest pause.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);
/// A container that ran this long starts over with the first pause.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// How often something failed lately. The first failure costs no pause, the second 10 s, then twice as much each
/// time, up to 5 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Pause that holds now.
    pub delay: Duration,
    /// When it was last lengthened.
    pub since: Timestamp,
}

impl Backoff {
    /// When something that ended at `finished` may run again; `None` when at once.
    pub fn until(backoff: Option<Backoff>, finished: Timestamp) -> Option<Timestamp> {
        let held = backoff.filter(|b| !b.is_forgiven(finished))?;
        finished.checked_add(held.delay).ok()
    }

    /// The pause to hold after something that ended at `finished` is started again at `now`.
    pub fn next(backoff: Option<Backoff>, finished: Timestamp, now: Timestamp) -> Backoff {
        let delay =
            backoff.filter(|b| !b.is_forgiven(finished)).map_or(FIRST, |b| b.delay.saturating_mul(2).min(LONGEST));
        Backoff { delay, since: now }
    }

    fn is_forgiven(self, finished: Timestamp) -> bool {
        finished.duration_since(self.since) > jiff::SignedDuration::try_from(FORGIVEN_AFTER).unwrap_or_default()
    }
}
