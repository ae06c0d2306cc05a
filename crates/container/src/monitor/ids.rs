//! Ranges of user and group ids for sandboxes with a user namespace of their own. No two have one in common, so what
//! gets out of one owns nothing, neither of the machine nor of another.

use std::collections::BTreeSet;

use super::request::refuse;
use crate::protocol::{IdRange, Refusal, RefusalKind};

/// As many ids as images use.
const LENGTH: u32 = 65_536;
/// Above what distributions hand out to users for containers of theirs.
const FIRST: u32 = 0x1000_0000;
/// More than there are sandboxes. The last id is the last that systemd leaves to container managers.
const COUNT: u32 = 0x6000;

/// Ranges in use, by number.
#[derive(Debug, Default)]
pub(super) struct IdRanges {
    taken: BTreeSet<u32>,
    last: u32,
}

impl IdRanges {
    /// A free range. One that was given back comes as late as possible.
    pub(super) fn next(&mut self) -> Result<IdRange, Refusal> {
        let free = (1..=COUNT).map(|step| (self.last + step) % COUNT).find(|number| !self.taken.contains(number));
        let number = free.ok_or_else(|| refuse(RefusalKind::Exhausted, "all ranges of user ids are taken"))?;
        self.taken.insert(number);
        self.last = number;
        Ok(IdRange { first: FIRST + number * LENGTH, length: LENGTH })
    }

    /// Marks a range of an earlier monitor as taken.
    pub(super) fn take(&mut self, range: IdRange) {
        if let Some(number) = number(range) {
            self.taken.insert(number);
            self.last = self.last.max(number);
        }
    }

    /// Gives a range back.
    pub(super) fn release(&mut self, range: IdRange) {
        if let Some(number) = number(range) {
            self.taken.remove(&number);
        }
    }
}

fn number(range: IdRange) -> Option<u32> {
    range.first.checked_sub(FIRST).map(|offset| offset / LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_distinct_come_back_last_and_run_out() {
        let mut ranges = IdRanges::default();
        let first = ranges.next().unwrap();
        let second = ranges.next().unwrap();
        assert_eq!(second.first, first.first + LENGTH);
        ranges.release(first);
        assert!(ranges.next().unwrap().first > second.first);
        let mut restarted = IdRanges::default();
        restarted.take(second);
        assert!(restarted.next().unwrap().first > second.first);
        let rest = std::iter::from_fn(|| ranges.next().ok()).map(|range| range.first);
        assert_eq!(rest.collect::<BTreeSet<u32>>().len() as u32, COUNT - 2);
        ranges.release(second);
        assert_eq!(ranges.next().unwrap(), second);
        const { assert!(FIRST + COUNT * LENGTH - 1 <= 0x6fff_ffff) };
    }
}
