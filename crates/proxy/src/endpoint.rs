//! The instances of an endpoint pool, and the load each carries.

use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Numbers;

use knoll_api::table::Instance;
use tokio::sync::Notify;

use super::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A counter alone on its cache line, so that threads do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(AtomicU32);

/// One instance, with the load it carries. Lives as long as a request or a set refers to it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Names the endpoint in connection pools; never used twice in a process.
    pub(crate) id: u64,
    /// Where it is.
    pub(crate) instance: Instance,
    /// Requests in flight under a hard limit.
    used: AtomicU32,
    /// Requests in flight without a limit, by data thread.
    load: Box<[Shard]>,
    /// Until when (milliseconds of the gateway's life) it is avoided, because it could not be reached.
    avoid_until: AtomicU64,
    /// Whether it left the set, for good: it takes nothing new.
    left: AtomicBool,
    /// Told when it has left and its last request ends.
    idle: Notify,
}

static NEXT_ENDPOINT: Numbers = Numbers::new(1);

impl Endpoint {
    pub(crate) fn new(instance: Instance, threads: usize) -> Self {
        Self {
            id: NEXT_ENDPOINT.fetch_add(1, Ordering::Relaxed),
            instance,
            used: AtomicU32::new(0),
            load: (0..threads).map(|_| Shard::default()).collect(),
            avoid_until: AtomicU64::new(0),
            left: AtomicBool::new(false),
            idle: Notify::new(),
        }
    }

    /// Takes a place under `limit`; false when all are taken.
    pub(crate) fn take(&self, limit: u32) -> bool {
        // Sequentially consistent with the count of waiters: see `endpoint_pool.rs`.
        self.used.try_update(Ordering::SeqCst, Ordering::SeqCst, |used| (used < limit).then_some(used + 1)).is_ok()
    }

    /// Gives back a place taken with [`Endpoint::take`].
    pub(crate) fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::SeqCst);
        self.ended();
    }

    /// Counts a request without a limit.
    pub(crate) fn enter(&self, thread: usize) {
        // Sequentially consistent with `left`: see [`Endpoint::idle`].
        self.load[thread].0.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends what [`Endpoint::enter`] began.
    pub(crate) fn leave(&self, thread: usize) {
        self.load[thread].0.fetch_sub(1, Ordering::SeqCst);
        self.ended();
    }

    fn ended(&self) {
        if self.has_left() && self.in_flight() == 0 {
            self.idle.notify_waiters();
        }
    }

    /// Requests in flight without a limit; a moment's guess while threads count.
    pub(crate) fn load(&self) -> u32 {
        self.load.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }

    /// Requests in flight, limited or not; a moment's guess while threads count.
    pub(crate) fn in_flight(&self) -> u32 {
        let load: u32 = self.load.iter().map(|shard| shard.0.load(Ordering::SeqCst)).sum();
        self.used.load(Ordering::SeqCst) + load
    }

    /// Takes nothing new from now on.
    pub(crate) fn retire(&self) {
        self.left.store(true, Ordering::SeqCst);
    }

    /// Whether it takes nothing new.
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
    }

    /// Ends once no request is in flight, of an endpoint that takes nothing new.
    ///
    /// Why none is missed: a request counts itself in before it looks whether the endpoint has left (and then backs
    /// out), and the endpoint has left before its requests are looked at, so one of the two sees the other. Likewise
    /// whoever ends last sees that the endpoint has left, or is seen to have ended.
    pub(crate) async fn idle(&self) {
        loop {
            let mut ended = std::pin::pin!(self.idle.notified());
            ended.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Avoids the endpoint until `until`, milliseconds of the gateway's life.
    pub(crate) fn avoid(&self, until: u64) {
        self.avoid_until.fetch_max(until, Ordering::Relaxed);
    }

    /// Uses the endpoint again.
    pub(crate) fn trust(&self) {
        if self.avoid_until.load(Ordering::Relaxed) != 0 {
            self.avoid_until.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the endpoint is avoided at `now`, milliseconds of the gateway's life.
    pub(crate) fn avoided(&self, now: u64) -> bool {
        let until = self.avoid_until.load(Ordering::Relaxed);
        until != 0 && now < until
    }

    /// Whether the endpoint could not be reached when it was last tried and has not been since.
    pub(crate) fn suspect(&self) -> bool {
        self.avoid_until.load(Ordering::Relaxed) != 0
    }
}

/// The instances of an endpoint pool at a moment, ordered by address.
#[derive(Debug, Default)]
pub(crate) struct EndpointSet {
    /// Most requests in flight in one instance; 0 is unlimited.
    pub(crate) limit: u32,
    /// The instances.
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
}

impl EndpointSet {
    /// How many requests all of them take at a time, or one if there is none just now; nothing where that is not limited.
    pub(crate) fn capacity(&self) -> Option<usize> {
        (self.limit > 0).then(|| self.endpoints.len().max(1) * self.limit as usize)
    }
}
