//! How many events a subscriber is sent at a time: as many as it is known to take, or as its answers say.

use std::num::NonZeroU32;

/// What a subscriber begins with of which nothing is known.
const BEGINNING: u32 = 32;

/// A bound that follows answers: one more for each round of successes while it is what holds events back, half of it when
/// the subscriber has too much to do (additive increase, multiplicative decrease).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    current: u32,
    most: u32,
    /// Successes of the present round.
    successes: u32,
    /// Answers to what was sent before the bound was lowered, which say nothing about the new one.
    old: u32,
    is_known: bool,
}

impl Limit {
    /// Of a subscriber that takes `known` events at a time, or of whom that is learned, up to `most`.
    pub(crate) fn new(known: Option<NonZeroU32>, most: u32) -> Self {
        let current = known.map_or(BEGINNING.min(most), NonZeroU32::get);
        Self { current, most: most.max(current), successes: 0, old: 0, is_known: known.is_some() }
    }

    /// Takes over what is newly known; what was learned stays where nothing is.
    pub(crate) fn adopt(&mut self, known: Option<NonZeroU32>, most: u32) {
        match known {
            None if !self.is_known => {}
            known => *self = Self::new(known, most),
        }
    }

    pub(crate) fn current(&self) -> usize {
        self.current as usize
    }

    /// A delivery that was taken, with so many under way while it was.
    pub(crate) fn succeeded(&mut self, in_flight: usize) {
        if self.is_known || self.is_old() || in_flight < self.current() {
            return;
        }
        self.successes += 1;
        if self.successes >= self.current {
            self.successes = 0;
            self.current = (self.current + 1).min(self.most);
        }
    }

    /// An answer that says that it is too much, with so many under way while it came.
    pub(crate) fn overloaded(&mut self, in_flight: usize) {
        if self.is_known || self.is_old() {
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

    #[test]
    fn a_known_limit_stays() {
        let mut limit = Limit::new(NonZeroU32::new(3), 256);
        for _ in 0..100 {
            limit.succeeded(3);
        }
        limit.overloaded(3);
        assert_eq!(limit.current(), 3);
        limit.adopt(NonZeroU32::new(5), 256);
        assert_eq!(limit.current(), 5);
        limit.adopt(None, 256);
        assert_eq!(limit.current(), 32);
    }

    #[test]
    fn a_learned_one_grows_by_one_a_round_only_while_it_holds_events_back() {
        let mut limit = Limit::new(None, 40);
        (0..31).for_each(|_| limit.succeeded(32));
        assert_eq!(limit.current(), 32);
        limit.succeeded(32);
        assert_eq!(limit.current(), 33);
        (0..1000).for_each(|_| limit.succeeded(10));
        assert_eq!(limit.current(), 33);
        (0..10_000).for_each(|_| limit.succeeded(40));
        assert_eq!(limit.current(), 40);
        limit.adopt(None, 40);
        assert_eq!(limit.current(), 40);
    }

    #[test]
    fn too_much_halves_it_once_a_round_and_never_to_nothing() {
        let mut limit = Limit::new(None, 256);
        (0..32).for_each(|_| limit.overloaded(32));
        assert_eq!(limit.current(), 16, "answers to one round lower it once");
        limit.overloaded(1);
        assert_eq!(limit.current(), 8);
        (0..20).for_each(|_| limit.overloaded(1));
        assert_eq!(limit.current(), 1);
    }
}
