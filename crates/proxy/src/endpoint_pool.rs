//! What all threads must agree on about one revision: its endpoints, the places in them, and who waits.
//!
//! A place is a [`Permit`]; dropping it gives the place back. Without saturation taking and giving back touch
//! atomics alone. The lock is for those who wait and for changes of the endpoints.
//!
//! Why no wake-up is lost: a waiter counts itself in `waiting` before it looks for a place under the lock, and
//! a permit gives its place back before it looks at `waiting`. Both are sequentially consistent, so at least
//! one of the two sees the other. `tests/interleavings.rs` runs this file under a scheduler that tries many orders.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64 as Numbers;
use std::sync::{Arc, PoisonError, Weak};

use knoll_api::Key;
use knoll_api::table::{Backend, Instance};
use tokio::sync::{mpsc, oneshot};

use super::balance;
use super::endpoint::{Endpoint, EndpointSet};
use super::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::errors::Refusal;
use crate::gateway::{EndpointPoolView, EndpointView};
use crate::metrics::Metrics;

/// What a waiter is told.
pub(crate) type Answer = Result<Permit, Refusal>;

/// One revision (or one other Service) as the gateway knows it.
#[derive(Debug)]
pub(crate) struct EndpointPool {
    /// Names the endpoint pool inside this process.
    pub(crate) id: u64,
    /// The Revision, or the Service when `wakes` is `None`.
    pub(crate) key: Key,
    /// Whether the key is a Revision's: it is woken when it has no instance, and reported.
    pub(crate) is_revision: bool,
    pub(crate) common: Arc<Common>,
    /// Changes with each set of endpoints, so that threads may keep the last one.
    version: AtomicU64,
    waiting: AtomicUsize,
    /// Whether the endpoint pool was given up; it never comes back.
    closed: AtomicBool,
    cursor: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What the table says, a Service each; usually one, so that a list weighs least.
    services: Vec<(Key, Arc<Backend>)>,
    /// Instances that were announced ahead of the table.
    hints: Vec<Instance>,
    /// Instances that were said to be gone ahead of the table.
    gone: Vec<Instance>,
    set: Arc<EndpointSet>,
    /// Endpoints that left the set, as long as a request holds them.
    leaving: Vec<Weak<Endpoint>>,
    failure: Option<Arc<str>>,
    /// In order of arrival.
    waiters: BTreeMap<u64, Waiter>,
    next_waiter: u64,
    /// Whether the revision was asked to wake and has not had an instance since.
    woken: bool,
}

#[derive(Debug)]
struct Waiter {
    thread: usize,
    answer: oneshot::Sender<Answer>,
}

/// What the endpoint pools of a gateway share.
#[derive(Debug)]
pub(crate) struct Common {
    /// Data threads.
    pub(crate) threads: usize,
    /// Most requests that wait for one endpoint pool.
    pub(crate) depth: usize,
    /// Revisions to wake.
    pub(crate) wakes: mpsc::Sender<Key>,
    pub(crate) metrics: Arc<Metrics>,
    /// Endpoint pools with instances, so that a report need not look at all.
    pub(crate) populated: Mutex<HashMap<u64, Weak<EndpointPool>>>,
}

impl Common {
    pub(crate) fn new(threads: usize, depth: usize, wakes: mpsc::Sender<Key>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { threads, depth, wakes, metrics, populated: Mutex::default() })
    }

    /// The endpoint pools that have instances.
    pub(crate) fn populated(&self) -> Vec<Arc<EndpointPool>> {
        self.lock_populated().values().filter_map(Weak::upgrade).collect()
    }

    /// Taken after an endpoint pool's own lock, never before it.
    fn lock_populated(&self) -> MutexGuard<'_, HashMap<u64, Weak<EndpointPool>>> {
        // A map of handles is whole whatever panicked.
        self.populated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most hints kept for one endpoint pool beyond the table; more are dropped, the table will bring them.
const MAX_HINTS: usize = 4096;

static NEXT_POOL: Numbers = Numbers::new(1);

impl EndpointPool {
    pub(crate) fn new(key: Key, is_revision: bool, common: Arc<Common>) -> Self {
        Self {
            id: NEXT_POOL.fetch_add(1, Ordering::Relaxed),
            key,
            is_revision,
            common,
            version: AtomicU64::new(1),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            cursor: AtomicUsize::new(0),
            inner: Mutex::new(Inner::default()),
        }
    }

    /// Changes whenever [`EndpointPool::endpoints`] does.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The instances, and the version they belong to.
    pub(crate) fn endpoints(&self) -> (u64, Arc<EndpointSet>) {
        let inner = self.lock();
        (self.version.load(Ordering::Acquire), inner.set.clone())
    }

    /// Whether the endpoint pool was given up, so that another has its place if its Service is back.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether anyone waits.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Takes a place without waiting, unless others wait already.
    pub(crate) fn try_admit(self: &Arc<Self>, set: &EndpointSet, thread: usize, now: u64) -> Option<Permit> {
        if set.limit != 0 && self.has_waiters() {
            return None;
        }
        let endpoint = balance::pick(set, &self.cursor, thread, now)?;
        let permit = Permit::new(self.clone(), endpoint, set.limit != 0, thread);
        // The set is the thread's, and may be of a moment ago.
        (!permit.endpoint.has_left()).then_some(permit)
    }

    /// Joins those who wait. The receiver is answered as soon as there is a place, or a reason why there never
    /// will be; dropping the [`Waiting`] leaves the queue.
    pub(crate) fn wait(self: &Arc<Self>, thread: usize, now: u64) -> Result<Waiting, Refusal> {
        let mut inner = self.lock();
        if inner.set.endpoints.is_empty() {
            if let Some(failure) = &inner.failure {
                return Err(Refusal::Failed(failure.clone()));
            }
            if !self.is_revision {
                return Err(Refusal::NoEndpoints);
            }
        }
        if inner.waiters.len() >= self.common.depth {
            return Err(Refusal::QueueFull);
        }
        let (answer, receiver) = oneshot::channel();
        let id = inner.next_waiter;
        inner.next_waiter += 1;
        self.count_in();
        inner.waiters.insert(id, Waiter { thread, answer });
        self.serve_waiters(&mut inner, now);
        self.ask_to_wake(&mut inner);
        Ok(Waiting { pool: self.clone(), id, receiver })
    }

    /// Asks again for an instance when someone waits and there is none: the first word may not have fitted
    /// into the channel, or was overtaken by a decision to sleep.
    pub(crate) fn remind(&self) {
        if self.has_waiters() {
            let mut inner = self.lock();
            inner.woken = false;
            self.ask_to_wake(&mut inner);
        }
    }

    /// Follows what the table says about `service`; `None` when it no longer does. Returns whether any Service
    /// still leads here.
    pub(crate) fn follow(self: &Arc<Self>, service: &Key, backend: Option<Arc<Backend>>, now: u64) -> bool {
        let mut inner = self.lock();
        inner.services.retain(|(key, _)| key != service);
        if let Some(backend) = backend {
            inner.services.reserve_exact(1);
            inner.services.push((service.clone(), backend));
            inner.services.sort_unstable_by(|(one, _), (two, _)| one.cmp(two));
        }
        let Inner { services, hints, gone, .. } = &mut *inner;
        let listed = |instance: &Instance| services.iter().any(|(_, backend)| backend.instances.contains(instance));
        // A hint the table confirms has done its work; so has a "gone" the table no longer contradicts.
        hints.retain(|hint| !listed(hint));
        gone.retain(listed);
        inner.failure = inner.services.iter().find_map(|(_, backend)| backend.failure.as_deref()).map(Arc::from);
        self.renew(&mut inner, now);
        !inner.services.is_empty()
    }

    /// Whether any Service leads here.
    pub(crate) fn has_services(&self) -> bool {
        !self.lock().services.is_empty()
    }

    /// Uses `instance` from now on, whatever the table says.
    pub(crate) fn instance_up(self: &Arc<Self>, instance: &Instance, now: u64) {
        let mut inner = self.lock();
        inner.gone.retain(|gone| gone != instance);
        // A new pod may come at the address of an old one.
        inner.hints.retain(|hint| hint.address != instance.address);
        if inner.hints.len() < MAX_HINTS {
            inner.hints.push(instance.clone());
        } else {
            self.common.metrics.hints_dropped.count();
        }
        self.renew(&mut inner, now);
    }

    /// Stops using `instance`, whatever the table says. Requests in flight go on.
    pub(crate) fn instance_down(self: &Arc<Self>, instance: &Instance, now: u64) {
        let mut inner = self.lock();
        inner.hints.retain(|hint| hint != instance);
        let listed = inner.services.iter().any(|(_, backend)| backend.instances.contains(instance));
        if listed && !inner.gone.contains(instance) {
            inner.gone.push(instance.clone());
        }
        self.renew(&mut inner, now);
    }

    /// What is left of an instance that takes no new requests: where requests may be in flight.
    pub(crate) fn leaving(&self, instance: &Instance) -> Vec<Arc<Endpoint>> {
        let leaving = self.lock().leaving.iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        leaving.into_iter().filter(|endpoint| endpoint.instance == *instance).collect()
    }

    /// What an operator sees; `None` when nothing goes on here.
    pub(crate) fn view(&self) -> Option<EndpointPoolView> {
        let inner = self.lock();
        if inner.set.endpoints.is_empty() && inner.waiters.is_empty() {
            return None;
        }
        let view = |endpoint: &Arc<Endpoint>| EndpointView {
            instance: endpoint.instance.clone(),
            in_flight: endpoint.in_flight(),
            suspect: endpoint.suspect(),
        };
        Some(EndpointPoolView {
            key: self.key.clone(),
            limit: inner.set.limit,
            endpoints: inner.set.endpoints.iter().map(view).collect(),
            waiting: inner.waiters.len(),
            called: inner.woken,
            failure: inner.failure.as_deref().map(str::to_owned),
        })
    }

    /// Notes that `endpoint` could not be reached. A hint is dropped: the table did not confirm it either.
    pub(crate) fn unreachable(self: &Arc<Self>, endpoint: &Endpoint, now: u64, until: u64) {
        endpoint.avoid(until);
        let mut inner = self.lock();
        let before = inner.hints.len();
        inner.hints.retain(|hint| *hint != endpoint.instance);
        if inner.hints.len() != before {
            self.renew(&mut inner, now);
        }
    }

    /// Tells all who wait that the revision is gone. Returns whether a request may still be in flight.
    pub(crate) fn close(&self) -> bool {
        let mut inner = self.lock();
        let Inner { set, leaving, .. } = &mut *inner;
        let left = std::mem::take(set);
        left.endpoints.iter().for_each(|endpoint| endpoint.retire());
        leaving.extend(left.endpoints.iter().map(Arc::downgrade));
        self.closed.store(true, Ordering::Release);
        self.common.lock_populated().remove(&self.id);
        inner.failure = Some(Arc::from("RevisionMissing: the revision was deleted"));
        self.version.fetch_add(1, Ordering::Release);
        self.refuse_waiters(&mut inner);
        inner.leaving.iter().any(|endpoint| endpoint.strong_count() > 0)
    }

    /// Rebuilds the set of endpoints; instances that stay keep their endpoints and so their load.
    fn renew(self: &Arc<Self>, inner: &mut Inner, now: u64) {
        let mut instances: Vec<&Instance> =
            inner.services.iter().flat_map(|(_, backend)| &backend.instances).chain(&inner.hints).collect();
        instances.sort_unstable();
        instances.dedup();
        instances.retain(|instance| !inner.gone.contains(instance));
        let limit = inner
            .services
            .iter()
            .find_map(|(_, backend)| backend.revision.as_ref())
            .map_or(0, |policy| policy.container_concurrency);
        let old = &inner.set.endpoints;
        let endpoints: Vec<Arc<Endpoint>> = instances
            .into_iter()
            .map(|instance| match old.binary_search_by(|endpoint| endpoint.instance.cmp(instance)) {
                Ok(at) => old[at].clone(),
                Err(_) => Arc::new(Endpoint::new(instance.clone(), self.common.threads)),
            })
            .collect();
        match (old.is_empty(), endpoints.is_empty()) {
            (true, false) => drop(self.common.lock_populated().insert(self.id, Arc::downgrade(self))),
            (false, true) => drop(self.common.lock_populated().remove(&self.id)),
            _ => {}
        }
        let stays = |endpoint: &Endpoint| {
            endpoints.binary_search_by(|stays: &Arc<Endpoint>| stays.instance.cmp(&endpoint.instance)).is_ok()
        };
        let left = old.iter().filter(|endpoint| !stays(endpoint)).inspect(|endpoint| endpoint.retire());
        inner.leaving.extend(left.map(Arc::downgrade));
        inner.leaving.retain(|endpoint| endpoint.strong_count() > 0);
        inner.set = Arc::new(EndpointSet { limit, endpoints });
        self.version.fetch_add(1, Ordering::Release);
        if !inner.set.endpoints.is_empty() {
            inner.woken = false;
            self.serve_waiters(inner, now);
        } else if inner.failure.is_some() {
            self.refuse_waiters(inner);
        } else {
            self.ask_to_wake(inner);
        }
    }

    fn serve_waiters(self: &Arc<Self>, inner: &mut Inner, now: u64) {
        let set = inner.set.clone();
        while let Some((_, first)) = inner.waiters.first_key_value() {
            let thread = first.thread;
            let Some(endpoint) = balance::pick(&set, &self.cursor, thread, now) else { return };
            let Some((_, waiter)) = inner.waiters.pop_first() else { return };
            self.count_out();
            let permit = Permit::new(self.clone(), endpoint, set.limit != 0, thread);
            if let Err(Ok(unused)) = waiter.answer.send(Ok(permit)) {
                // The waiter has just gone. Its permit must not look for waiters itself: we hold the lock.
                unused.release_quietly();
            }
        }
        inner.woken = false;
    }

    fn refuse_waiters(&self, inner: &mut Inner) {
        let Some(failure) = inner.failure.clone() else { return };
        for (_, waiter) in std::mem::take(&mut inner.waiters) {
            self.count_out();
            // A waiter that has just gone needs no answer.
            drop(waiter.answer.send(Err(Refusal::Failed(failure.clone()))));
        }
    }

    fn ask_to_wake(&self, inner: &mut Inner) {
        let needed = self.is_revision && inner.set.endpoints.is_empty() && !inner.waiters.is_empty();
        if needed && !inner.woken {
            inner.woken = self.common.wakes.try_send(self.key.clone()).is_ok();
            let metrics = &self.common.metrics;
            if inner.woken { metrics.wakes.count() } else { metrics.wakes_unsent.count() }
        }
    }

    fn leave(&self, id: u64) {
        let mut inner = self.lock();
        if inner.waiters.remove(&id).is_some() {
            self.count_out();
            if inner.waiters.is_empty() {
                inner.woken = false;
            }
        }
    }

    fn count_in(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.common.metrics.waiting.enter();
    }

    fn count_out(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.common.metrics.waiting.leave();
    }

    fn freed(self: &Arc<Self>) {
        if self.has_waiters() {
            // Whether an instance is avoided only orders the choice; time 0 avoids all suspects.
            self.serve_waiters(&mut self.lock(), 0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock leaves the state half changed when it panics.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Waiting {
    pool: Arc<EndpointPool>,
    id: u64,
    pub(crate) receiver: oneshot::Receiver<Answer>,
}

impl Waiting {
    /// Waits for the answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        (&mut self.receiver).await.unwrap_or(Err(Refusal::Gone))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.pool.leave(self.id);
    }
}

/// A request's place in an instance. Dropping it gives the place to the next.
#[derive(Debug)]
pub(crate) struct Permit {
    pool: Arc<EndpointPool>,
    endpoint: Arc<Endpoint>,
    limited: bool,
    thread: usize,
    released: bool,
}

impl Permit {
    fn new(pool: Arc<EndpointPool>, endpoint: Arc<Endpoint>, limited: bool, thread: usize) -> Self {
        Self { pool, endpoint, limited, thread, released: false }
    }

    /// The instance.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Whose instance it is.
    pub(crate) fn pool(&self) -> &Arc<EndpointPool> {
        &self.pool
    }

    fn release_quietly(mut self) {
        self.give_back();
        self.released = true;
    }

    fn give_back(&self) {
        if self.limited {
            self.endpoint.give_back();
        } else {
            self.endpoint.leave(self.thread);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        self.give_back();
        if self.limited {
            self.pool.freed();
        }
    }
}
