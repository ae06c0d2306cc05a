//! Counting requests: each thread for itself, collected each second.
//!
//! Concurrency is weighted by time. A thread keeps, for each station it has seen, the number of requests in the
//! system and the integral of that number over time; both change in one place, so no lock and no atomic is
//! needed. A request counts from its arrival at the queue until its response has ended.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::fleet::Fleet;
use crate::station::Station;

/// A thread's view of a station: its counters and the last fleet seen.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) station: Arc<Station>,
    seen: RefCell<(u64, Arc<Fleet>)>,
    present: Cell<u64>,
    arrivals: Cell<u64>,
    request_nanos: Cell<u64>,
    changed: Cell<Instant>,
}

/// What a thread saw of a station in a period.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) station: Arc<Station>,
    /// Mean number of requests in the system.
    pub(crate) average: f64,
    pub(crate) arrivals: u64,
}

impl Desk {
    pub(crate) fn new(station: Arc<Station>, now: Instant) -> Self {
        let seen = RefCell::new(station.fleet());
        let (present, arrivals, request_nanos) = Default::default();
        Self { station, seen, present, arrivals, request_nanos, changed: Cell::new(now) }
    }

    /// Runs `use_it` with the station's present fleet.
    pub(crate) fn with_fleet<T>(&self, use_it: impl FnOnce(&Fleet) -> T) -> T {
        if self.seen.borrow().0 != self.station.version() {
            self.seen.replace(self.station.fleet());
        }
        use_it(&self.seen.borrow().1)
    }

    /// Counts a request in; it is in the system until the answer is dropped.
    pub(crate) fn arrive(self: &Rc<Self>, now: Instant) -> Presence {
        self.advance(now);
        self.present.set(self.present.get() + 1);
        self.arrivals.set(self.arrivals.get() + 1);
        Presence(self.clone())
    }

    /// Ends a period and starts the next; `None` when nothing happened.
    pub(crate) fn collect(&self, now: Instant, period_nanos: f64) -> Option<Count> {
        self.advance(now);
        let nanos = self.request_nanos.take();
        let arrivals = self.arrivals.take();
        if nanos == 0 && arrivals == 0 {
            return None;
        }
        let average = nanos as f64 / period_nanos.max(1.0);
        Some(Count { station: self.station.clone(), average, arrivals })
    }

    /// Whether no request of this thread is in the system.
    pub(crate) fn is_quiet(&self) -> bool {
        self.present.get() == 0
    }

    fn advance(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.changed.replace(now));
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.request_nanos.set(self.request_nanos.get().saturating_add(nanos.saturating_mul(self.present.get())));
    }
}

/// A request in the system.
#[derive(Debug)]
pub(crate) struct Presence(Rc<Desk>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.advance(Instant::now());
        self.0.present.set(self.0.present.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn desk(now: Instant) -> Rc<Desk> {
        let (wakes, _) = tokio::sync::mpsc::channel(1);
        let station = Station::new(knoll_api::Key::new("ns", "rev"), true, 1, 10, wakes);
        Rc::new(Desk::new(Arc::new(station), now))
    }

    #[test]
    fn concurrency_is_weighted_by_time() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let desk = desk(start);
        let _one = desk.arrive(at(0));
        let _two = desk.arrive(at(500));
        // One for the whole second, one for half of it.
        let first = desk.collect(at(1000), 1e9).expect("there was traffic");
        assert!((first.average - 1.5).abs() < 1e-9, "{}", first.average);
        assert_eq!(first.arrivals, 2);
        // Both stay: no arrivals, but two present.
        let second = desk.collect(at(2000), 1e9).expect("requests are present");
        assert!((second.average - 2.0).abs() < 1e-9);
        assert_eq!(second.arrivals, 0);
        assert!(!desk.is_quiet());
    }

    #[test]
    fn a_quiet_period_reports_nothing() {
        let start = Instant::now();
        let desk = desk(start);
        assert!(desk.collect(start + Duration::from_secs(1), 1e9).is_none());
        drop(desk.arrive(start + Duration::from_secs(1)));
        assert!(desk.is_quiet());
        assert_eq!(desk.collect(start + Duration::from_secs(2), 1e9).map(|count| count.arrivals), Some(1));
    }
}
