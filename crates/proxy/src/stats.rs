//! Counting requests: each thread for itself, collected each second.
//!
//! Concurrency is weighted by time. A thread keeps, for each station it has seen, the number of requests in the
//! system and the integral of that number over time; both change in one place, so no lock and no atomic is
//! needed. A request counts from its arrival at the queue until its response has ended.
//!
//! Collecting costs what happened: a desk is visited only in a period in which it counted something.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::station::Station;

/// All desks of a thread.
#[derive(Debug)]
pub(crate) struct Desks {
    by_station: RefCell<HashMap<u64, Weak<Desk>>>,
    /// Those that counted something since the last period ended, or have a request in the system.
    active: RefCell<Vec<Rc<Desk>>>,
    in_flight: Cell<usize>,
    /// Most requests in the system of this thread.
    most: usize,
    metrics: Arc<Metrics>,
    thread: usize,
}

/// A thread's view of a station: its counters and the last fleet seen.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) station: Arc<Station>,
    desks: Rc<Desks>,
    seen: RefCell<(u64, Arc<Fleet>)>,
    present: Cell<u64>,
    arrivals: Cell<u64>,
    request_nanos: Cell<u64>,
    changed: Cell<Instant>,
    active: Cell<bool>,
}

/// What a thread saw of a station in a period.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) station: Arc<Station>,
    /// Mean number of requests in the system.
    pub(crate) average: f64,
    pub(crate) arrivals: u64,
}

impl Desks {
    /// The desks of the thread numbered `thread`, for at most `most` requests at a time.
    pub(crate) fn new(thread: usize, most: usize, metrics: Arc<Metrics>) -> Rc<Self> {
        let (by_station, active, in_flight) = Default::default();
        Rc::new(Self { by_station, active, in_flight, most, metrics, thread })
    }

    /// The desk of a station; it lives as long as somebody refers to it.
    pub(crate) fn of(self: &Rc<Self>, station: Arc<Station>, now: Instant) -> Rc<Desk> {
        let id = station.id;
        let known = self.by_station.borrow().get(&id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let desk = Rc::new(Desk::new(station, self.clone(), now));
            self.by_station.borrow_mut().insert(id, Rc::downgrade(&desk));
            desk
        })
    }

    /// Ends a period of `period_nanos` and starts the next.
    pub(crate) fn collect(&self, now: Instant, period_nanos: f64) -> Vec<Count> {
        let active = self.active.take();
        let counts = active.iter().filter_map(|desk| desk.collect(now, period_nanos)).collect();
        let (present, quiet): (Vec<_>, Vec<_>) = active.into_iter().partition(|desk| desk.present.get() > 0);
        quiet.iter().for_each(|desk| desk.active.set(false));
        self.active.borrow_mut().extend(present);
        counts
    }

    /// Forgets who was active, so that nothing keeps anything alive.
    pub(crate) fn close(&self) {
        drop(self.active.take());
    }

    fn gauge(&self) -> &crate::metrics::Gauge {
        &self.metrics.threads[self.thread].more.in_flight
    }
}

impl Desk {
    fn new(station: Arc<Station>, desks: Rc<Desks>, now: Instant) -> Self {
        let seen = RefCell::new(station.fleet());
        let (present, arrivals, request_nanos, active) = Default::default();
        Self { station, desks, seen, present, arrivals, request_nanos, changed: Cell::new(now), active }
    }

    /// Runs `use_it` with the station's present fleet.
    pub(crate) fn with_fleet<T>(&self, use_it: impl FnOnce(&Fleet) -> T) -> T {
        if self.seen.borrow().0 != self.station.version() {
            self.seen.replace(self.station.fleet());
        }
        use_it(&self.seen.borrow().1)
    }

    /// Counts a request in; it is in the system until the answer is dropped. `None` when the thread has as many as
    /// it may.
    pub(crate) fn arrive(self: &Rc<Self>, now: Instant) -> Option<Presence> {
        let in_flight = self.desks.in_flight.get();
        if in_flight >= self.desks.most {
            return None;
        }
        self.desks.in_flight.set(in_flight + 1);
        self.desks.gauge().enter();
        self.advance(now);
        self.present.set(self.present.get() + 1);
        self.arrivals.set(self.arrivals.get() + 1);
        if !self.active.replace(true) {
            self.desks.active.borrow_mut().push(self.clone());
        }
        Some(Presence(self.clone()))
    }

    /// Ends a period and starts the next; `None` when nothing happened.
    fn collect(&self, now: Instant, period_nanos: f64) -> Option<Count> {
        self.advance(now);
        let nanos = self.request_nanos.take();
        let arrivals = self.arrivals.take();
        if nanos == 0 && arrivals == 0 {
            return None;
        }
        let average = nanos as f64 / period_nanos.max(1.0);
        Some(Count { station: self.station.clone(), average, arrivals })
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
        let desk = &self.0;
        desk.advance(Instant::now());
        desk.present.set(desk.present.get() - 1);
        desk.desks.in_flight.set(desk.desks.in_flight.get() - 1);
        desk.desks.gauge().leave();
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.desks.by_station.borrow_mut().remove(&self.station.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn desk(now: Instant) -> (Rc<Desks>, Rc<Desk>) {
        let desks = Desks::new(0, 3, Arc::new(Metrics::new(1)));
        let desk = desks.of(crate::station::tests::alone(), now);
        (desks, desk)
    }

    #[test]
    fn concurrency_is_weighted_by_time() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let (desks, desk) = desk(start);
        let _one = desk.arrive(at(0)).expect("room");
        let _two = desk.arrive(at(500)).expect("room");
        // One for the whole second, one for half of it.
        let [first] = &desks.collect(at(1000), 1e9)[..] else { panic!("there was traffic") };
        assert!((first.average - 1.5).abs() < 1e-9, "{}", first.average);
        assert_eq!(first.arrivals, 2);
        // Both stay: no arrivals, but two present.
        let [second] = &desks.collect(at(2000), 1e9)[..] else { panic!("requests are present") };
        assert!((second.average - 2.0).abs() < 1e-9);
        assert_eq!(second.arrivals, 0);
    }

    #[test]
    fn a_quiet_desk_is_not_visited_and_forgotten_with_its_last_user() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (desks, desk) = desk(start);
        assert!(desks.collect(at(1), 1e9).is_empty());
        drop(desk.arrive(at(1)));
        assert_eq!(desks.active.borrow().len(), 1);
        assert!(matches!(&desks.collect(at(2), 1e9)[..], [Count { arrivals: 1, .. }]));
        assert!(desks.active.borrow().is_empty());
        drop(desk);
        assert!(desks.by_station.borrow().is_empty());
    }

    #[test]
    fn what_a_forgotten_route_counted_is_still_reported() {
        let start = Instant::now();
        let (desks, desk) = desk(start);
        drop(desk.arrive(start));
        drop(desk);
        assert_eq!(desks.collect(start + Duration::from_secs(1), 1e9).len(), 1);
        assert!(desks.by_station.borrow().is_empty());
    }

    #[test]
    fn a_thread_takes_no_more_than_it_may() {
        let start = Instant::now();
        let (_desks, desk) = desk(start);
        let all: Vec<_> = (0..3).map(|_| desk.arrive(start).expect("room")).collect();
        assert!(desk.arrive(start).is_none());
        drop(all);
        assert!(desk.arrive(start).is_some());
    }
}
