//! Sets of completion indexes, written as a Job's status has them: `1,3-5,7`.

use std::fmt;

/// A set of indexes. Costs what it has of runs, not of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    /// First and last of each run: ascending, apart from each other.
    runs: Vec<(i32, i32)>,
}

impl Indexes {
    /// Reads a list of indexes and runs, of which those from `completions` on are left out. What is neither is passed
    /// over: nobody but this controller writes the field.
    pub(super) fn parse(text: &str, completions: i32) -> Indexes {
        let run = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
            let last = last.min(completions - 1);
            (first >= 0 && first <= last).then_some((first, last))
        };
        Indexes::of(text.split(',').filter_map(run).collect())
    }

    fn of(mut runs: Vec<(i32, i32)>) -> Indexes {
        runs.sort_unstable();
        let mut merged: Vec<(i32, i32)> = Vec::with_capacity(runs.len());
        for (first, last) in runs {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Indexes { runs: merged }
    }

    /// These and `more`.
    pub(super) fn with(&self, more: impl IntoIterator<Item = i32>) -> Indexes {
        Indexes::of(self.runs.iter().copied().chain(more.into_iter().map(|index| (index, index))).collect())
    }

    /// These and those.
    pub(super) fn union(&self, other: &Indexes) -> Indexes {
        Indexes::of(self.runs.iter().chain(&other.runs).copied().collect())
    }

    /// How many there are.
    pub(super) fn len(&self) -> i32 {
        self.runs.iter().fold(0, |count, (first, last)| count.saturating_add(last - first + 1))
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether this one is among them.
    pub(super) fn contains(&self, index: i32) -> bool {
        let at = self.runs.partition_point(|(_, last)| *last < index);
        self.runs.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many both have.
    pub(super) fn shared(&self, other: &Indexes) -> i32 {
        let overlap = |(first, last): (i32, i32), run: &(i32, i32)| (last.min(run.1) - first.max(run.0) + 1).max(0);
        let with = |run: &(i32, i32)| {
            let from = other.runs.partition_point(|(_, last)| *last < run.0);
            other.runs[from..].iter().take_while(|(first, _)| *first <= run.1).map(|o| overlap(*run, o)).sum::<i32>()
        };
        self.runs.iter().map(with).sum()
    }

    /// The first `most` below `completions` that are not among them.
    pub(super) fn missing(&self, most: usize, completions: i32) -> Vec<i32> {
        let ends = self.runs.iter().copied().chain([(completions, completions)]);
        let mut from = 0;
        let mut missing = Vec::new();
        for (first, last) in ends {
            missing.extend((from..first.min(completions)).take(most - missing.len()));
            from = last.saturating_add(1);
        }
        missing
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.runs.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn read(text: &str) -> Indexes {
        Indexes::parse(text, 100)
    }

    #[test]
    fn what_is_written_reads_the_same() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7", "0,1,3,4,6-9"] {
            assert_eq!(read(text).to_string(), text);
        }
        assert_eq!(read("5,1-3,4,x,9-7,-1").to_string(), "1-5", "in order, joined, without what is none");
        assert_eq!(Indexes::parse("1,3-9,12", 5).to_string(), "1,3,4", "below the completions");
    }

    #[test]
    fn sets_are_what_sets_of_numbers_are() {
        let numbers = |set: &Indexes| (-1..101).filter(|at| set.contains(*at)).collect::<BTreeSet<i32>>();
        let texts = ["", "0", "1,3-5,7", "0-9", "2-4,6,8-20", "99", "50-99"];
        for (a, b) in texts.iter().flat_map(|a| texts.iter().map(move |b| (read(a), read(b)))) {
            let (na, nb) = (numbers(&a), numbers(&b));
            assert_eq!(usize::try_from(a.len()), Ok(na.len()));
            assert_eq!(numbers(&a.union(&b)), &na | &nb);
            assert_eq!(a.with(nb.iter().copied()), a.union(&b));
            assert_eq!(usize::try_from(a.shared(&b)), Ok((&na & &nb).len()));
            let left: Vec<i32> = (0..100).filter(|at| !na.contains(at)).collect();
            assert_eq!(a.missing(1000, 100), left);
            assert_eq!(a.missing(3, 100), left[..3.min(left.len())]);
        }
    }

    #[test]
    fn the_largest_job_has_room() {
        let all = Indexes::parse("0-2147483646", i32::MAX);
        assert_eq!(all.len(), i32::MAX);
        assert!(all.missing(5, i32::MAX).is_empty());
        assert_eq!(Indexes::default().missing(2, i32::MAX), [0, 1]);
    }
}
