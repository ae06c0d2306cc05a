//! What time it is for a controller: most ask for how long something has been so, by a time that does not jump; some go by
//! dates, which the wall clock says.

use jiff::Timestamp;
use knoll_api::clock::{JumpWatch, SteadyClock};
use knoll_plan::Rows;

/// The present time.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    steady: Timestamp,
    wall: Timestamp,
}

impl Now {
    pub(crate) fn by(clock: &SteadyClock) -> Now {
        Now { steady: clock.now(), wall: clock.reading().1 }
    }

    /// What a controller is told.
    pub(crate) fn of(self, rows: &Rows, index: usize) -> Timestamp {
        if rows.goes_by_dates(index) { self.wall } else { self.steady }
    }
}

/// Notices that dates are not what they were when somebody began to wait for one.
pub(crate) struct DateWatch(JumpWatch);

impl DateWatch {
    pub(crate) fn new(clock: &SteadyClock) -> DateWatch {
        DateWatch(JumpWatch::new(clock.reading()))
    }

    /// The controllers that have to look at all their keys again since the last look: the wall clock was set, or the machine
    /// slept, while timers stood still.
    pub(crate) fn look(&mut self, clock: &SteadyClock, rows: &Rows) -> Vec<usize> {
        let Some(by) = self.0.look(clock.reading()) else { return Vec::new() };
        tracing::info!(?by, "the clock was set, or the machine slept: what goes by dates is looked at again");
        (0..rows.all().len()).filter(|index| rows.goes_by_dates(*index)).collect()
    }
}
