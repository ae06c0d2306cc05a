//! How often something is handed over that many changes come together in: at once when nothing was handed over lately, else
//! with what follows shortly.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest time between two; changes in between come together.
const APART: Duration = Duration::from_millis(2);
/// That time again, as a multiple of what the last one cost: however much there is, it takes a fifth of the loop.
const APART_BY_COST: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    last: Option<Instant>,
    apart: Duration,
}

impl Pace {
    pub(crate) const fn new() -> Self {
        Self { last: None, apart: APART }
    }

    /// When the next one may be handed over.
    pub(crate) fn next(&self) -> Instant {
        self.last.map_or_else(Instant::now, |last| last + self.apart)
    }

    /// Whether the next one may be handed over by now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| last + self.apart <= now)
    }

    /// One was handed over, and cost this much.
    pub(crate) fn handed_over(&mut self, now: Instant, cost: Duration) {
        self.apart = APART.max(cost * APART_BY_COST);
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_comes_after_four_times_what_the_last_one_cost() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        assert!(pace.is_due(now));
        for (cost, apart) in [(0, 2), (7, 28)] {
            let after = |millis| now + Duration::from_millis(millis);
            pace.handed_over(now, Duration::from_millis(cost));
            assert_eq!(pace.next(), after(apart));
            assert_eq!([after(apart - 1), after(apart)].map(|now| pace.is_due(now)), [false, true]);
        }
    }
}
