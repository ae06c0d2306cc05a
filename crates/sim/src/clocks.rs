//! A machine's clocks: one that only runs, and one on the wall that somebody sets.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use knoll_api::clock::SteadyClock;

/// The clocks of the one machine there is.
#[derive(Clone)]
pub(crate) struct Clocks(Arc<Mutex<(Duration, Timestamp)>>);

impl Clocks {
    /// A machine that is switched on at this time.
    pub(crate) fn new(wall: Timestamp) -> Clocks {
        Clocks(Arc::new(Mutex::new((Duration::ZERO, wall))))
    }

    fn read(&self) -> (Duration, Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it runs.
    pub(crate) fn running(&self) -> Duration {
        self.read().0
    }

    /// What the clock on the wall says.
    pub(crate) fn wall(&self) -> Timestamp {
        self.read().1
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, time: Duration) {
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.0 += time;
        clocks.1 += SignedDuration::try_from(time).expect("a run takes no ages");
    }

    /// Sets the clock on the wall.
    pub(crate) fn set_by(&self, by: SignedDuration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 += by;
    }

    /// The time that a process which starts now decides by.
    pub(crate) fn steady(&self) -> SteadyClock {
        let (clocks, start) = (self.clone(), Instant::now());
        SteadyClock::new(move || {
            let (running, wall) = clocks.read();
            (start + running, wall)
        })
    }
}
