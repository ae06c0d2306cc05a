//! Counting requests: each thread for itself, collected each second.
//!
//! Concurrency is weighted by time. A thread keeps, for each endpoint pool it has seen, the number of requests in the
//! system and the integral of that number over time; both change in one place, so no lock and no atomic is
//! needed. A request counts from its arrival at the queue until its response has ended.
//!
//! Collecting costs what happened: a meter is visited only in a period in which it counted something.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use crate::endpoint::EndpointSet;
use crate::endpoint_pool::EndpointPool;
use crate::metrics::Metrics;

/// All meters of a thread.
#[derive(Debug)]
pub(crate) struct Meters {
    by_pool: RefCell<HashMap<u64, Weak<Meter>>>,
    /// Those that counted something since the last period ended, or have a request in the system.
    active: RefCell<Vec<Rc<Meter>>>,
    in_flight: Cell<usize>,
    /// Most requests in the system of this thread.
    most: usize,
    metrics: Arc<Metrics>,
    thread: usize,
}

/// A thread's view of an endpoint pool: its counters and the endpoints last seen.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) pool: Arc<EndpointPool>,
    meters: Rc<Meters>,
    seen: RefCell<(u64, Arc<EndpointSet>)>,
    present: Cell<u64>,
    arrivals: Cell<u64>,
    request_nanos: Cell<u64>,
    changed: Cell<Instant>,
    active: Cell<bool>,
}

/// What a thread saw of an endpoint pool in a period.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) pool: Arc<EndpointPool>,
    /// Mean number of requests in the system.
    pub(crate) average: f64,
    pub(crate) arrivals: u64,
}

impl Meters {
    /// The meters of the thread numbered `thread`, for at most `most` requests at a time.
    pub(crate) fn new(thread: usize, most: usize, metrics: Arc<Metrics>) -> Rc<Self> {
        let (by_pool, active, in_flight) = Default::default();
        Rc::new(Self { by_pool, active, in_flight, most, metrics, thread })
    }

    /// The meter of an endpoint pool; it lives as long as somebody refers to it.
    pub(crate) fn of(self: &Rc<Self>, pool: Arc<EndpointPool>, now: Instant) -> Rc<Meter> {
        let id = pool.id;
        let known = self.by_pool.borrow().get(&id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let meter = Rc::new(Meter::new(pool, self.clone(), now));
            self.by_pool.borrow_mut().insert(id, Rc::downgrade(&meter));
            meter
        })
    }

    /// Ends a period of `period_nanos` and starts the next.
    pub(crate) fn collect(&self, now: Instant, period_nanos: f64) -> Vec<Count> {
        let active = self.active.take();
        let counts = active.iter().filter_map(|meter| meter.collect(now, period_nanos)).collect();
        let (present, quiet): (Vec<_>, Vec<_>) = active.into_iter().partition(|meter| meter.present.get() > 0);
        quiet.iter().for_each(|meter| meter.active.set(false));
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

impl Meter {
    fn new(pool: Arc<EndpointPool>, meters: Rc<Meters>, now: Instant) -> Self {
        let seen = RefCell::new(pool.endpoints());
        let (present, arrivals, request_nanos, active) = Default::default();
        Self { pool, meters, seen, present, arrivals, request_nanos, changed: Cell::new(now), active }
    }

    /// Runs `use_it` with the pool's present endpoints.
    pub(crate) fn with_endpoints<T>(&self, use_it: impl FnOnce(&EndpointSet) -> T) -> T {
        if self.seen.borrow().0 != self.pool.version() {
            self.seen.replace(self.pool.endpoints());
        }
        use_it(&self.seen.borrow().1)
    }

    /// Counts a request in; it is in the system until the answer is dropped. `None` when the thread has as many as
    /// it may.
    pub(crate) fn arrive(self: &Rc<Self>, now: Instant) -> Option<InFlight> {
        let in_flight = self.meters.in_flight.get();
        if in_flight >= self.meters.most {
            return None;
        }
        self.meters.in_flight.set(in_flight + 1);
        self.meters.gauge().enter();
        self.advance(now);
        self.present.set(self.present.get() + 1);
        self.arrivals.set(self.arrivals.get() + 1);
        if !self.active.replace(true) {
            self.meters.active.borrow_mut().push(self.clone());
        }
        Some(InFlight(self.clone()))
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
        Some(Count { pool: self.pool.clone(), average, arrivals })
    }

    fn advance(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.changed.replace(now));
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.request_nanos.set(self.request_nanos.get().saturating_add(nanos.saturating_mul(self.present.get())));
    }
}

/// A request in the system.
#[derive(Debug)]
pub(crate) struct InFlight(Rc<Meter>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let meter = &self.0;
        meter.advance(Instant::now());
        meter.present.set(meter.present.get() - 1);
        meter.meters.in_flight.set(meter.meters.in_flight.get() - 1);
        meter.meters.gauge().leave();
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.meters.by_pool.borrow_mut().remove(&self.pool.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn meter(now: Instant) -> (Rc<Meters>, Rc<Meter>) {
        let meters = Meters::new(0, 3, Arc::new(Metrics::new(1)));
        let meter = meters.of(crate::tests::endpoint_pool::alone(), now);
        (meters, meter)
    }

    #[test]
    fn concurrency_is_weighted_by_time() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let (meters, meter) = meter(start);
        let _one = meter.arrive(at(0)).expect("room");
        let _two = meter.arrive(at(500)).expect("room");
        // One for the whole second, one for half of it.
        let [first] = &meters.collect(at(1000), 1e9)[..] else { panic!("there was traffic") };
        assert!((first.average - 1.5).abs() < 1e-9, "{}", first.average);
        assert_eq!(first.arrivals, 2);
        // Both stay: no arrivals, but two present.
        let [second] = &meters.collect(at(2000), 1e9)[..] else { panic!("requests are present") };
        assert!((second.average - 2.0).abs() < 1e-9);
        assert_eq!(second.arrivals, 0);
    }

    #[test]
    fn a_quiet_meter_is_not_visited_and_forgotten_with_its_last_user() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (meters, meter) = meter(start);
        assert!(meters.collect(at(1), 1e9).is_empty());
        drop(meter.arrive(at(1)));
        assert_eq!(meters.active.borrow().len(), 1);
        assert!(matches!(&meters.collect(at(2), 1e9)[..], [Count { arrivals: 1, .. }]));
        assert!(meters.active.borrow().is_empty());
        drop(meter);
        assert!(meters.by_pool.borrow().is_empty());
    }

    #[test]
    fn what_a_forgotten_route_counted_is_still_reported() {
        let start = Instant::now();
        let (meters, meter) = meter(start);
        drop(meter.arrive(start));
        drop(meter);
        assert_eq!(meters.collect(start + Duration::from_secs(1), 1e9).len(), 1);
        assert!(meters.by_pool.borrow().is_empty());
    }

    #[test]
    fn a_thread_takes_no_more_than_it_may() {
        let start = Instant::now();
        let (_pools, meter) = meter(start);
        let all: Vec<_> = (0..3).map(|_| meter.arrive(start).expect("room")).collect();
        assert!(meter.arrive(start).is_none());
        drop(all);
        assert!(meter.arrive(start).is_some());
    }
}
