//! What a node counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use knoll_api::metrics::MetricFamily;

macro_rules! counters {
    ($($name:ident: $help:literal,)*) => {
        /// Counts since the node was made; shared by all its parts. Each field only grows.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(#[doc = $help] pub(crate) $name: Counter,)*
        }

        /// The counts at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Reading {
            $(#[doc = $help] pub $name: u64,)*
        }

        impl Counters {
            /// The counts now.
            pub(crate) fn read(&self) -> Reading {
                Reading { $($name: self.$name.0.load(Relaxed),)* }
            }
        }

        impl Reading {
            /// The counts with what they mean.
            pub fn metrics(&self) -> Vec<MetricFamily> {
                vec![$(MetricFamily::counter(concat!("node_", stringify!($name)), $help, self.$name),)*]
            }
        }
    };
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more. Returns how many there are now.
    pub(crate) fn add(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }
}

counters! {
    panics: "Panics, each of which cost one pod, question or part of the node a new start",
    quarantined: "Times a pod was left alone for a while, because its worker panicked again and again",
    unreadable: "Objects of the API that could not be read and were left as they were",
    events_dropped: "Events about pods that were not recorded: too many waited",
    events_throttled: "Events about pods that were not recorded: their pod tells too many",
    dns_questions: "DNS questions taken in",
    dns_throttled: "DNS questions and connections refused or dropped: their client has its share already",
    dns_forged: "Answers of resolvers that belong to no question that was asked",
    dns_failed: "DNS questions that no resolver answered",
    evicted: "Pods evicted: the machine runs out of disk or memory, or they use more than they may",
}
