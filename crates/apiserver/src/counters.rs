//! What happened, counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use knoll_api::metrics::MetricFamily;

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

macro_rules! counters {
    ($($name:ident: $help:literal,)*) => {
        /// Everything the API server counts.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $help] pub $name: Counter,)*
        }

        impl Counters {
            /// The counts with what they mean.
            pub fn metrics(&self) -> Vec<MetricFamily> {
                vec![$(MetricFamily::counter(concat!("apiserver_", stringify!($name)), $help, self.$name.get()),)*]
            }
        }
    };
}

counters! {
    panics: "Requests, streams and steps of the API server that panicked",
    throttled: "Requests answered with 429 because too many were in flight, of all clients or of one",
    connections_refused: "Connections refused because too many were open, of all clients or of one address",
    connections_idle: "Connections closed because nothing was asked on them for too long",
    stalled: "Connections and answers given up because their client did not read for too long",
    overdue: "Requests that took longer than they may",
}
