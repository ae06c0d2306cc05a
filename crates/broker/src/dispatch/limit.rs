//! How many events a subscriber is sent at a time: as its answers say, in words or by how they go.

use std::num::NonZeroU32;

/// What a subscriber begins with of which nothing is known.
const BEGINNING: u32 = 32;
/// For one that a subscriber says it takes, so many are sent: one is being handled, and one waits in front of it, by which
/// whoever scales it sees that there is more. The rest waits in the event log.
const FOR_ONE: u32 = 2;

/// What an answer says of how much its subscriber takes at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Capacity {
    /// There was no answer.
    #[default]
    Unknown,
    /// Nothing.
    Unsaid,
    /// So many events.
    Of(NonZeroU32),
}

/// A bound that follows answers: one more for each round of successes while it is what holds events back, half of it when
/// the subscriber has too much to do (additive increase, multiplicative decrease); and never more than twice what the
/// subscriber says that it takes, if it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    current: u32,
    /// Most that it may ever be, and most that it may be by what was said.
    most: u32,
    ceiling: u32,
    /// Successes of the present round.
    successes: u32,
    /// Answers to what was sent before the bound was lowered, which say nothing about the new one.
    old: u32,
    /// Whether the subscriber had too much to do since it was last sent as much as it may be.
    is_lowered: bool,
}

impl Limit {
    /// Of a subscriber of which nothing is known, up to `most`.
    pub(crate) fn new(most: u32) -> Self {
        let current = BEGINNING.min(most);
        Self { current, most, ceiling: most, successes: 0, old: 0, is_lowered: false }
    }

    pub(crate) fn current(&self) -> usize {
        self.current as usize
    }

    /// Takes over what an answer says.
    pub(crate) fn told(&mut self, capacity: Capacity) {
        let ceiling = match capacity {
            Capacity::Unknown => return,
            Capacity::Unsaid => self.most,
            Capacity::Of(capacity) => capacity.get().saturating_mul(FOR_ONE).min(self.most),
        };
        self.ceiling = ceiling;
        self.current = self.current.min(ceiling);
        // Who takes more than before, and never had too much, is sent more at once.
        if matches!(capacity, Capacity::Of(_)) && !self.is_lowered {
            self.current = ceiling;
        }
    }

    /// A delivery that was taken, with so many under way while it was.
    pub(crate) fn succeeded(&mut self, in_flight: usize) {
        if self.is_old() || in_flight < self.current() {
            return;
        }
        self.successes += 1;
        if self.successes >= self.current {
            self.successes = 0;
            self.current = (self.current + 1).min(self.ceiling);
            self.is_lowered &= self.current < self.ceiling;
        }
    }

    /// An answer that says that it is too much, with so many under way while it came.
    pub(crate) fn overloaded(&mut self, in_flight: usize) {
        self.is_lowered = true;
        if self.is_old() {
            return;
        }
        self.current = (self.current / 2).max(1);
        self.successes = 0;
        self.old = u32::try_from(in_flight.saturating_sub(1)).unwrap_or(u32::MAX);
    }

    fn is_old(&mut self) -> bool {
        let is_old = self.old > 0;
        self.old = self.old.saturating_sub(1);
        is_old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(capacity: u32) -> Capacity {
        NonZeroU32::new(capacity).map_or(Capacity::Unsaid, Capacity::Of)
    }

    #[test]
    fn who_says_how_much_it_takes_is_sent_twice_that_and_more_or_less_as_that_changes() {
        let mut limit = Limit::new(256);
        for (said, current) in [(of(1), 2), (of(3), 6), (Capacity::Unknown, 6), (of(1000), 256), (of(2), 4)] {
            limit.told(said);
            assert_eq!(limit.current(), current, "{said:?}");
        }
        (0..1000).for_each(|_| limit.succeeded(4));
        assert_eq!(limit.current(), 4, "it says that it takes no more");
        limit.told(Capacity::Unsaid);
        (0..4).for_each(|_| limit.succeeded(4));
        assert_eq!(limit.current(), 5, "it does not say any more");
    }

    #[test]
    fn who_had_too_much_is_not_sent_more_at_once_whatever_it_says() {
        let mut limit = Limit::new(256);
        limit.told(of(8));
        limit.overloaded(1);
        assert_eq!(limit.current(), 8);
        limit.told(of(8));
        assert_eq!(limit.current(), 8);
        (0..8).for_each(|_| limit.succeeded(8));
        limit.told(of(8));
        assert_eq!(limit.current(), 9);
        (0..1000).for_each(|_| limit.succeeded(16));
        assert_eq!(limit.current(), 16);
        limit.told(of(9));
        assert_eq!(limit.current(), 18, "that was long ago");
    }

    #[test]
    fn a_learned_one_grows_by_one_a_round_only_while_it_holds_events_back() {
        let mut limit = Limit::new(40);
        (0..31).for_each(|_| limit.succeeded(32));
        assert_eq!(limit.current(), 32);
        limit.succeeded(32);
        assert_eq!(limit.current(), 33);
        (0..1000).for_each(|_| limit.succeeded(10));
        assert_eq!(limit.current(), 33);
        (0..10_000).for_each(|_| limit.succeeded(40));
        assert_eq!(limit.current(), 40);
    }

    #[test]
    fn too_much_halves_it_once_a_round_and_never_to_nothing() {
        let mut limit = Limit::new(256);
        (0..32).for_each(|_| limit.overloaded(32));
        assert_eq!(limit.current(), 16, "answers to one round lower it once");
        limit.overloaded(1);
        assert_eq!(limit.current(), 8);
        (0..20).for_each(|_| limit.overloaded(1));
        assert_eq!(limit.current(), 1);
    }
}
