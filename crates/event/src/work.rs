//! What a filter may do for one event, so that nobody's filters hold up a thread.
//!
//! Work is counted in bytes of text that comparisons and functions go through; whatever else is done, a step, counts as
//! [`STEP`] of them. Text is what takes long, and both take about as long then.

use std::cell::Cell;

/// What a step costs: a comparison, or an operator, operand or function of an expression.
pub(crate) const STEP: usize = 8;

/// What may still be done.
#[derive(Debug)]
pub(crate) struct Work {
    /// Nothing once more was asked for than was left.
    left: Cell<Option<usize>>,
}

impl Work {
    pub(crate) fn of(most: usize) -> Self {
        Self { left: Cell::new(Some(most)) }
    }

    /// Does a step that goes through so many bytes of text, unless that is more than is left: then nothing more is done.
    pub(crate) fn spend(&self, bytes: usize) -> bool {
        let left = self.left.get().and_then(|left| left.checked_sub(bytes.saturating_add(STEP)));
        self.left.set(left);
        left.is_some()
    }

    /// How much was done of so much; `None` when it was not enough.
    pub(crate) fn done_of(&self, most: usize) -> Option<usize> {
        self.left.get().map(|left| most - left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_done_once_more_was_asked_for_than_was_left() {
        let work = Work::of(100);
        assert!(work.spend(42) && work.spend(34));
        assert_eq!(work.done_of(100), Some(92));
        assert!(work.spend(0));
        assert!(!work.spend(0) && !work.spend(usize::MAX));
        assert_eq!(work.done_of(100), None);
    }
}
