//! What happened, counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it happened.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything the API server counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests and streams that panicked.
    pub panics: Counter,
    /// Requests answered with 429 because too many were in flight, of all clients or of one.
    pub throttled: Counter,
    /// Connections that were refused because too many were open, of all clients or of one address.
    pub connections_refused: Counter,
    /// Connections that were closed because their client did not read for too long.
    pub stalled: Counter,
    /// Connections that were closed because nothing was asked on them for too long.
    pub idle: Counter,
    /// Requests that took longer than they may.
    pub overdue: Counter,
}
