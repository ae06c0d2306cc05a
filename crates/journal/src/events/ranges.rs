//! Sets of offsets as sorted ranges: what is settled ahead of a watermark.

/// A set of offsets, kept as disjoint ranges (first and last, both in it) that do not touch, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Puts the offsets from `first` to `last` into the set. Costs the ranges behind them: those are moved.
    pub fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // Those that touch or overlap become one.
        let from = self.0.partition_point(|range| range.1.saturating_add(1) < first);
        let to = self.0.partition_point(|range| range.0 <= last.saturating_add(1));
        let joined = match self.0.get(from..to) {
            Some([]) | None => (first, last),
            Some(touched) => (first.min(touched[0].0), last.max(touched[touched.len() - 1].1)),
        };
        self.0.splice(from..to, [joined]);
    }

    /// Takes out every offset below `end`.
    pub fn remove_below(&mut self, end: u64) {
        let gone = self.0.partition_point(|range| range.1 < end);
        self.0.drain(..gone);
        if let Some(range) = self.0.first_mut() {
            range.0 = range.0.max(end);
        }
    }

    /// Takes out the offsets from `first` to `last`. Costs the ranges behind them.
    pub fn remove(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let from = self.0.partition_point(|range| range.1 < first);
        let to = self.0.partition_point(|range| range.0 <= last);
        let before = self.0.get(from).filter(|range| range.0 < first).map(|range| (range.0, first - 1));
        let after = to.checked_sub(1).and_then(|at| self.0.get(at)).filter(|range| range.1 > last);
        let after = after.map(|range| (last + 1, range.1));
        if from < to {
            self.0.splice(from..to, before.into_iter().chain(after));
        }
    }

    /// The range that holds `offset`.
    pub fn around(&self, offset: u64) -> Option<(u64, u64)> {
        let at = self.0.partition_point(|range| range.1 < offset);
        self.0.get(at).copied().filter(|range| range.0 <= offset)
    }

    /// The offsets from `from` up to and without `to` that are not in the set, ascending.
    pub fn gaps(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let behind = self.0.partition_point(|range| range.1 < from);
        let ends = self.0[behind..].iter().copied().map(Some).chain([None]);
        let mut next = from;
        ends.filter_map(move |range| {
            let (start, end) = range.map_or((to, to), |(first, last)| (first.min(to), last.saturating_add(1)));
            let gap = (next < start).then(|| (next, start - 1));
            next = next.max(end);
            gap
        })
    }

    /// Of the offsets from `within.0` to `within.1` those around `offset`, which is one of them and not in the set, up to
    /// the next that is in it on both sides.
    pub fn gap_around(&self, offset: u64, within: (u64, u64)) -> (u64, u64) {
        let after = self.0.partition_point(|range| range.1 < offset);
        let before = after.checked_sub(1).and_then(|at| self.0.get(at)).map_or(0, |range| range.1.saturating_add(1));
        let end = self.0.get(after).map_or(u64::MAX, |range| range.0.saturating_sub(1));
        (within.0.max(before), within.1.min(end))
    }

    /// How many offsets from `first` to `last` are in the set.
    pub fn count(&self, first: u64, last: u64) -> u64 {
        let from = self.0.partition_point(|range| range.1 < first);
        let within = self.0[from..].iter().take_while(|range| range.0 <= last);
        within.map(|range| range.1.min(last) - range.0.max(first) + 1).sum()
    }

    /// What is in both.
    pub fn intersection(&self, other: &Ranges) -> Ranges {
        let (mut here, mut there) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(&&(first, last)), Some(&&(other_first, other_last))) = (here.peek(), there.peek()) {
            let common = (first.max(other_first), last.min(other_last));
            if common.0 <= common.1 {
                both.push(common);
            }
            if last < other_last {
                here.next()
            } else {
                there.next()
            };
        }
        Ranges(both)
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// The largest offset in the set.
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|range| range.1)
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(first, last)| first..=last).collect()
    }

    fn made(of: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        of.iter().for_each(|(first, length)| ranges.insert(*first, first + length));
        ranges
    }

    proptest! {
        #[test]
        fn ranges_hold_what_a_plain_set_would(
            ours in prop::collection::vec((0_u64..60, 0_u64..8), 0..20),
            theirs in prop::collection::vec((0_u64..60, 0_u64..8), 0..20),
            below in 0_u64..70,
            span in (0_u64..40, 0_u64..80),
            taken_out in (0_u64..70, 0_u64..70),
        ) {
            let (mut ranges, other) = (made(&ours), made(&theirs));
            let mut plain: BTreeSet<u64> = ours.iter().flat_map(|(first, length)| *first..=first + length).collect();
            prop_assert_eq!(set(&ranges), plain.clone());
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "they touch");
            let both: BTreeSet<u64> = plain.intersection(&set(&other)).copied().collect();
            prop_assert_eq!(set(&ranges.intersection(&other)), both);
            let missing: Vec<u64> = ranges.gaps(span.0, span.1).flat_map(|(first, last)| first..=last).collect();
            let expected: Vec<u64> = (span.0..span.1).filter(|offset| !plain.contains(offset)).collect();
            prop_assert_eq!(missing, expected);
            let counted = plain.range(span.0..=span.0 + span.1).count() as u64;
            prop_assert_eq!(ranges.count(span.0, span.0 + span.1), counted);
            prop_assert!((0..70).all(|at| ranges.around(at).is_some() == plain.contains(&at)));
            ranges.remove_below(below);
            plain.retain(|offset| *offset >= below);
            prop_assert_eq!(set(&ranges), plain.clone());
            let (first, last) = taken_out;
            ranges.remove(first, last);
            plain.retain(|offset| *offset < first || *offset > last);
            prop_assert_eq!(set(&ranges), plain);
            prop_assert!(ranges.0.iter().all(|range| range.0 <= range.1), "one is empty");
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trap() {
        let mut ranges = Ranges::default();
        ranges.insert(u64::MAX, u64::MAX);
        ranges.insert(0, 0);
        ranges.insert(1, u64::MAX - 1);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, u64::MAX)]);
        assert_eq!(ranges.gaps(0, u64::MAX).count(), 0);
    }
}
