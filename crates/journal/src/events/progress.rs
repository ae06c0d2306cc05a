//! How far a consumer is.

use super::Ranges;

/// What a consumer of a stream is done with: every offset below a watermark, and some ahead of it; and how often it has
/// tried what it is not done with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    watermark: u64,
    ahead: Ranges,
    /// By offset, ascending; of unsettled ones only.
    attempts: Vec<(u64, u32)>,
}

impl Progress {
    /// Done with everything below `watermark`.
    pub fn starting_at(watermark: u64) -> Self {
        Self { watermark, ..Self::default() }
    }

    pub(crate) fn restored(watermark: u64, ahead: &[(u64, u64)], attempts: Vec<(u64, u32)>) -> Self {
        let mut progress = Self { watermark, ahead: Ranges::default(), attempts };
        ahead.iter().for_each(|(first, last)| progress.ahead.insert(*first, *last));
        progress.raise(watermark);
        progress
    }

    /// The first offset that is not settled.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// What is settled ahead of the watermark.
    pub fn ahead(&self) -> &Ranges {
        &self.ahead
    }

    /// Whether this offset is settled.
    pub fn is_settled(&self, offset: u64) -> bool {
        offset < self.watermark || self.ahead.around(offset).is_some()
    }

    /// The offsets from `from` up to and without `to` that are not settled, as ranges, ascending.
    pub fn unsettled(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ahead.gaps(from.max(self.watermark), to)
    }

    /// How often delivery of this offset was tried.
    pub fn attempts(&self, offset: u64) -> u32 {
        self.attempts.binary_search_by_key(&offset, |made| made.0).map_or(0, |at| self.attempts[at].1)
    }

    /// Every unsettled offset that was tried, and how often, ascending.
    pub fn tried(&self) -> &[(u64, u32)] {
        &self.attempts
    }

    /// Takes the offsets from `first` to `last` as settled.
    pub fn settle(&mut self, first: u64, last: u64) {
        let from = self.attempts.partition_point(|made| made.0 < first);
        let to = self.attempts.partition_point(|made| made.0 <= last);
        if from < to {
            self.attempts.drain(from..to);
        }
        if last >= self.watermark {
            self.ahead.insert(first.max(self.watermark), last);
            self.raise(self.watermark);
        }
    }

    /// Takes everything below `watermark` as settled.
    pub(crate) fn raise(&mut self, watermark: u64) {
        let end = self.ahead.around(watermark.max(self.watermark)).map(|range| range.1.saturating_add(1));
        let to = end.unwrap_or(watermark).max(self.watermark);
        if to > self.watermark || watermark == to {
            self.watermark = to;
            self.ahead.remove_below(to);
            let gone = self.attempts.partition_point(|made| made.0 < to);
            self.attempts.drain(..gone);
        }
    }

    /// Notes how often delivery of an unsettled offset was tried.
    pub(crate) fn tried_so_often(&mut self, offset: u64, attempts: u32) {
        if self.is_settled(offset) {
            return;
        }
        match self.attempts.binary_search_by_key(&offset, |made| made.0) {
            Ok(at) => self.attempts[at].1 = attempts,
            Err(at) => self.attempts.insert(at, (offset, attempts)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_follows_once_what_held_it_up_is_settled() {
        let mut progress = Progress::starting_at(3);
        progress.settle(4, 6);
        progress.settle(9, 9);
        progress.tried_so_often(3, 2);
        progress.tried_so_often(8, 1);
        progress.tried_so_often(5, 7);
        assert_eq!(progress.watermark(), 3);
        assert_eq!(progress.unsettled(0, 12).collect::<Vec<_>>(), [(3, 3), (7, 8), (10, 11)]);
        assert_eq!([progress.attempts(3), progress.attempts(8), progress.attempts(5)], [2, 1, 0]);
        progress.settle(0, 3);
        assert_eq!((progress.watermark(), progress.tried()), (7, &[(8, 1)][..]));
        progress.raise(8);
        assert_eq!((progress.watermark(), progress.tried()), (8, &[(8, 1)][..]));
        progress.settle(8, 8);
        assert_eq!(progress, Progress::starting_at(10));
        progress.settle(1, 5);
        progress.raise(4);
        assert_eq!(progress, Progress::starting_at(10));
    }
}
