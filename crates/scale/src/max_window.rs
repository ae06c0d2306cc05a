//! The greatest value of the last moments, for decisions that must not shrink too soon.

use std::collections::VecDeque;
use std::time::Duration;

/// Width of a slot: one tick of the autoscaler.
pub const SLOT: Duration = Duration::from_secs(2);

/// A sliding maximum over slots of [`SLOT`].
#[derive(Clone, Debug)]
pub struct MaxWindow {
    slots: u64,
    /// Slots with a value that no newer value reaches, oldest first; so the front is the maximum.
    falling: VecDeque<(u64, i32)>,
}

impl MaxWindow {
    /// A window of `length`, rounded up to whole slots.
    pub fn new(length: Duration) -> Self {
        let slots = length.as_nanos().div_ceil(SLOT.as_nanos()).max(1);
        Self { slots: u64::try_from(slots).unwrap_or(u64::MAX), falling: VecDeque::new() }
    }

    /// Notes `value` at `now` and returns the greatest value that is still inside.
    pub fn record(&mut self, now: Duration, value: i32) -> i32 {
        let slot = now.as_secs() / SLOT.as_secs();
        while self.falling.back().is_some_and(|&(_, older)| older <= value) {
            self.falling.pop_back();
        }
        self.falling.push_back((slot, value));
        while self.falling.front().is_some_and(|&(oldest, _)| slot >= oldest.saturating_add(self.slots)) {
            self.falling.pop_front();
        }
        self.falling.front().map_or(value, |&(_, greatest)| greatest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_value_stays_until_it_leaves_the_window() {
        // Six seconds are three slots: seconds 0-1, 2-3, 4-5.
        let mut window = MaxWindow::new(Duration::from_secs(6));
        let mut record = |second, value| window.record(Duration::from_secs(second), value);
        assert_eq!(record(0, 5), 5);
        assert_eq!(record(2, 3), 5);
        assert_eq!(record(4, 1), 5);
        assert_eq!(record(6, 1), 3);
        assert_eq!(record(8, 1), 1);
        assert_eq!(record(9, 7), 7);
        assert_eq!(record(13, 0), 7);
        assert_eq!(record(14, 0), 0);
    }

    #[test]
    fn lengths_are_rounded_up_to_slots() {
        let mut window = MaxWindow::new(Duration::from_secs(3));
        assert_eq!(window.record(Duration::from_secs(0), 9), 9);
        assert_eq!(window.record(Duration::from_secs(3), 1), 9);
        assert_eq!(window.record(Duration::from_secs(4), 1), 1);
    }
}
