//! What the loop counts about itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use knoll_api::metrics::MetricFamily;

macro_rules! counters {
    ($($name:ident: $help:literal,)*) => {
        /// Counts since the process started; shared by every task here. Each field only grows.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $help] pub(crate) $name: AtomicU64,)*
        }

        /// The counts at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Reading {
            $(#[doc = $help] pub $name: u64,)*
        }

        impl Reading {
            /// The counts with what they mean.
            pub fn metrics(&self) -> Vec<MetricFamily> {
                vec![$(MetricFamily::counter(concat!("controllers_", stringify!($name)), $help, self.$name),)*]
            }
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
    watched: "Watch events taken in",
    listed: "Listings taken in",
    rewatched: "Watches that broke and were begun again",
    absent: "Listings that found a kind not served",
    unreadable: "Objects that could not be read and count as they were",
    planned: "Keys planned",
    hurried: "Keys planned ahead of others, because a request waits for them",
    held: "Keys put back because plans for their namespace take more than its part of the time",
    executed: "Plans that wanted something",
    written: "Writes that succeeded",
    conflicts: "Writes refused because the object had changed",
    failures: "Writes that failed otherwise",
    overdue: "Keys that were planned before the World had caught up with their last write, after waiting too long for it",
    plan_panics: "Panics while one key was planned or its plan carried out",
    quarantined: "Keys left alone after panics in a row, until their object changes",
    task_panics: "Tasks that panicked and began again",
    events_recorded: "Kubernetes Events recorded",
    events_dropped: "Kubernetes Events left out: too many at once, or refused",
    published: "Tables handed to the gateway",
    topologies: "Snapshots handed to the data plane of events",
    decided: "Decisions of the autoscaler that differed from the one before",
    wakes_dropped: "Wake-ups left out: too many for revisions nobody knows",
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
