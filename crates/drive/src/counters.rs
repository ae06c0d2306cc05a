//! What the loop counts about itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the process started; shared by every task here. Each field only grows.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        /// The counts at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Reading {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The counts now.
            pub fn read(&self) -> Reading {
                Reading { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}
counters! {
    /// Watch events taken in.
    watched,
    /// Listings taken in.
    listed,
    /// Watches that broke and were begun again.
    rewatched,
    /// Objects that could not be read and were left out.
    unreadable,
    /// Keys planned.
    planned,
    /// Keys planned ahead of others, because a request waits for them.
    hurried,
    /// Plans that wanted something.
    executed,
    /// Writes that succeeded.
    written,
    /// Writes refused because the object had changed.
    conflicts,
    /// Writes that failed otherwise.
    failures,
    /// Keys that were planned before the World had caught up with their last write, after waiting too long for it.
    overdue,
    /// Kubernetes Events recorded.
    noted,
    /// Kubernetes Events left out: too many at once.
    notes_dropped,
    /// Tables handed to the gateway.
    published,
    /// Decisions of the autoscaler that differed from the one before.
    decided,
    /// Wake-ups left out: too many for revisions nobody knows.
    wakes_dropped,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
