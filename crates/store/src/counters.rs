//! What the store counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) transactions: AtomicU64,
    pub(crate) refused_full: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) checkpoint_failures: AtomicU64,
    pub(crate) packed: AtomicU64,
    pub(crate) pack_panics: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How a store fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The newest published revision.
    pub revision: u64,
    /// How many entries there are.
    pub entries: u64,
    /// Transactions committed since it was opened.
    pub transactions: u64,
    /// Transactions refused because the disk was full.
    pub refused_full: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Checkpoints that could not be written; the log is kept then.
    pub checkpoint_failures: u64,
    /// Values packed.
    pub packed: u64,
    /// Rounds of packing that panicked; their values stay as they are.
    pub pack_panics: u64,
    /// Bytes of recent changes kept for watches.
    pub history_bytes: u64,
    /// Open watches.
    pub watches: u64,
    /// Watches ended because their readers were too slow.
    pub watches_dropped: u64,
    /// Why nothing can be written any more, if so.
    pub stopped: Option<String>,
}

impl Counters {
    pub(crate) fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
