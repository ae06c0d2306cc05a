//! What is tried again, and when.

use std::{cmp::Reverse, collections::BinaryHeap};

use tokio::time::Instant;

/// Those of subscribers that are gone may be as many as the others before they are looked for, and so many more.
const STALE: usize = 1024;

/// Things that are due, each some subscriber's.
#[derive(Debug)]
pub(crate) struct Retries<T> {
    due: BinaryHeap<Reverse<(Instant, T)>>,
    /// How many there were when those of who is gone were last looked for.
    kept: usize,
}

impl<T: Ord> Default for Retries<T> {
    fn default() -> Self {
        Self { due: BinaryHeap::new(), kept: 0 }
    }
}

impl<T: Ord> Retries<T> {
    pub(crate) fn put(&mut self, due: Instant, what: T) {
        self.due.push(Reverse((due, what)));
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes one that is due by now.
    pub(crate) fn take(&mut self, now: Instant) -> Option<T> {
        self.next().filter(|due| *due <= now)?;
        self.due.pop().map(|Reverse((_, what))| what)
    }

    /// Somebody is gone: what nobody is left for goes, once it may be more than the rest. Costs a look at all of them then.
    pub(crate) fn left(&mut self, is_there: impl Fn(&T) -> bool) {
        if self.due.len() <= 2 * self.kept + STALE {
            return;
        }
        self.due.retain(|Reverse((_, what))| is_there(what));
        self.kept = self.due.len();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn those_of_who_left_do_not_pile_up_and_the_others_come_when_they_are_due() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        retries.put(at(2), (0, 1));
        retries.put(at(1), (0, 0));
        for who in 1..100_usize {
            (0..512).for_each(|item| retries.put(at(86_400), (who, item)));
            retries.left(|(of, _)| *of == 0 || *of > who);
            assert!(retries.due.len() <= 2 * 512 + STALE, "{} after {who}", retries.due.len());
        }
        assert_eq!((retries.next(), retries.take(now)), (Some(at(1)), None));
        assert_eq!((retries.take(at(2)), retries.take(at(2)), retries.take(at(2))), (Some((0, 0)), Some((0, 1)), None));
    }
}
