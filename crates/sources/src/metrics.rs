//! What sources count.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use knoll_api::{
    Kind,
    metrics::{MetricFamily, MetricKind},
};

/// Kinds that are carried out here, as labels call them.
const KINDS: [(Kind, &str); 3] =
    [(Kind::PingSource, "ping"), (Kind::IntegrationSource, "timer"), (Kind::ApiServerSource, "apiserver")];

/// A number for each kind of source.
#[derive(Debug, Default)]
pub(crate) struct ByKind([AtomicU64; KINDS.len()]);

impl ByKind {
    pub(crate) fn count(&self, kind: Kind) {
        if let Some(at) = KINDS.iter().position(|(of, _)| *of == kind) {
            self.0[at].fetch_add(1, Relaxed);
        }
    }

    fn read(&self, name: &'static str, help: &'static str) -> MetricFamily {
        let values = KINDS.iter().zip(&self.0).map(|((_, label), value)| ((*label).to_owned(), value.load(Relaxed)));
        MetricFamily::by(name, help, MetricKind::Counter, "source", values)
    }
}

/// A number of things that are there at the moment.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    /// One more, until the guard is dropped.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.0.fetch_add(1, Relaxed);
        Entered(self)
    }

    fn read(&self) -> u64 {
        u64::try_from(self.0.load(Relaxed)).unwrap_or(0)
    }
}

/// One of a [`Gauge`].
pub(crate) struct Entered<'a>(&'a Gauge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// All counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) sent: ByKind,
    pub(crate) failed: ByKind,
    pub(crate) retried: ByKind,
    pub(crate) skipped: ByKind,
    pub(crate) panics: ByKind,
    pub(crate) gaps: ByKind,
    pub(crate) waiting: Gauge,
    pub(crate) in_flight: Gauge,
    pub(crate) watches: Gauge,
}

impl Metrics {
    pub(crate) fn read(&self) -> Vec<MetricFamily> {
        vec![
            self.sent.read("sources_events_sent", "Events that a sink took"),
            self.failed.read("sources_events_lost", "Events that no attempt got taken, and that are lost"),
            self.retried.read("sources_attempts_repeated", "Attempts to send that followed a failed one"),
            self.skipped.read("sources_ticks_skipped", "Ticks without an event, since as many as may were under way"),
            self.gaps.read("sources_watch_gaps", "Watches that began anew, and missed what happened in between"),
            self.panics.read("sources_panics", "Panics, each of which cost one event, one watch or one turn"),
            MetricFamily::gauge(
                "sources_events_waiting",
                "Events that wait for those of their namespace, or of all, that are being sent",
                self.waiting.read(),
            ),
            MetricFamily::gauge("sources_events_in_flight", "Events being sent", self.in_flight.read()),
            MetricFamily::gauge("sources_watches", "Collections that are watched", self.watches.read()),
        ]
    }
}
