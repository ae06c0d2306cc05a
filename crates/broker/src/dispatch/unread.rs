//! What of a stream the system could not read: passed over so that others go on, and read again by and by.

use knoll_journal::events::Ranges;
use tokio::time::{Duration, Instant};

/// Before what could not be read is read again, at first; twice as long each time, up to the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);
/// Ranges that are passed over. Each keeps progress in one piece more, and a cursor has so many.
const MOST: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    holes: Ranges,
    /// Where the look at them that is under way goes on.
    at: Option<u64>,
    /// When the next look begins, and how long it was waited for.
    due: Option<(Instant, Duration)>,
    /// Until when nothing is read at all.
    pause: Option<Instant>,
}

impl Unread {
    /// The offsets that were passed over, and that nobody may take as done with.
    pub(crate) fn holes(&self) -> &Ranges {
        &self.holes
    }

    /// Whether what cannot be read may be passed over: not where as much is already.
    pub(crate) fn may_pass(&self, first: u64, last: u64) -> bool {
        self.holes.len() < MOST || self.holes.around(first).is_some() || self.holes.around(last + 1).is_some()
    }

    /// Passes over what could not be read. Says whether it was not passed over before.
    pub(crate) fn pass_over(&mut self, first: u64, last: u64, now: Instant) -> bool {
        let is_new = self.holes.count(first, last) == 0;
        self.holes.insert(first, last);
        match &mut self.at {
            Some(at) => *at = last + 1,
            None => {
                self.due.get_or_insert((now + FIRST, FIRST));
            }
        }
        is_new
    }

    /// Reads nothing for a while, what there is to read being read then: nothing is wrong with it.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.pause = Some(now + FIRST);
    }

    /// Whether nothing was to be read when this was last looked at.
    pub(crate) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Whether nothing may be read now.
    pub(crate) fn waits(&mut self, now: Instant) -> bool {
        self.pause = self.pause.filter(|until| *until > now);
        self.pause.is_some()
    }

    /// What is to be read again now, if anything is: its first offset, and the last. A look that is due begins.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(u64, u64)> {
        if self.at.is_none() && self.due.is_some_and(|(due, _)| due <= now) {
            self.at = Some(0);
        }
        let at = self.at?;
        let next = self.holes.iter().find(|(_, last)| *last >= at).map(|(first, last)| (first.max(at), last));
        if next.is_none() {
            self.at = None;
            let waited = self.due.map_or(FIRST, |(_, waited)| (2 * waited).min(LONGEST));
            self.due = (!self.holes.is_empty()).then_some((now + waited, waited));
        }
        next
    }

    /// Whether something is to be read again now.
    pub(crate) fn has_next(&self, now: Instant) -> bool {
        self.at.is_some() || self.due.is_some_and(|(due, _)| due <= now)
    }

    /// These were read: they are passed over no more.
    pub(crate) fn were_read(&mut self, first: u64, last: u64) {
        self.holes.remove(first, last);
    }

    /// When there is something to do by the clock.
    pub(crate) fn timer(&self) -> Option<Instant> {
        self.pause.or_else(|| self.due.filter(|_| self.at.is_none()).map(|(due, _)| due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_over_is_read_again_after_a_while_that_grows() {
        let (mut unread, begun) = (Unread::default(), Instant::now());
        assert_eq!((unread.next(begun), unread.timer()), (None, None));
        assert!(unread.pass_over(3, 5, begun) && unread.pass_over(9, 9, begun));
        let mut due = unread.timer().expect("a look is due");
        assert_eq!((due, unread.next(begun)), (begun + FIRST, None));
        for wait in [2, 4, 8, 10, 10] {
            assert_eq!(unread.next(due), Some((3, 5)));
            assert!(!unread.pass_over(3, 4, due), "it was before");
            assert_eq!(unread.next(due), Some((5, 5)));
            assert!(!unread.pass_over(5, 5, due));
            assert_eq!((unread.next(due), unread.timer()), (Some((9, 9)), None));
            assert!(!unread.pass_over(9, 9, due));
            assert_eq!(unread.next(due), None);
            let next = unread.timer().expect("a look is due");
            assert_eq!(next - due, Duration::from_secs(wait));
            due = next;
        }
        assert_eq!(unread.next(due), Some((3, 5)));
        unread.were_read(3, 3);
        assert_eq!((unread.next(due), unread.holes().iter().collect::<Vec<_>>()), (Some((4, 5)), vec![(4, 5), (9, 9)]));
        unread.were_read(4, 5);
        unread.were_read(9, 9);
        assert_eq!((unread.next(due), unread.timer()), (None, None));
        assert!(unread.pass_over(20, 20, due), "and a later one is waited for as little as the first");
        assert_eq!(unread.timer(), Some(due + FIRST));
    }

    #[test]
    fn only_so_much_is_passed_over_in_pieces() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        for at in 0..MOST as u64 {
            assert!(unread.may_pass(3 * at, 3 * at));
            unread.pass_over(3 * at, 3 * at, now);
        }
        let end = 3 * (MOST as u64 - 1);
        assert!(!unread.may_pass(end + 2, end + 2) && unread.may_pass(end, end), "what is there may");
    }

    #[test]
    fn while_the_system_has_no_room_to_read_nothing_is_read() {
        let (mut unread, now) = (Unread::default(), Instant::now());
        unread.wait(now);
        assert!(unread.waits(now) && unread.timer() == Some(now + FIRST));
        assert!(!unread.waits(now + FIRST) && unread.timer().is_none());
    }
}
