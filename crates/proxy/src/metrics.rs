//! What a gateway counts about itself, and how others read it.
//!
//! Each data thread counts on cache lines of its own; reading adds them up. What is rare, or belongs to no thread, is
//! counted in one place for all.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use http::StatusCode;
use knoll_api::metrics::{MetricFamily, MetricKind};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number of things that are there at the moment.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn enter(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn read(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Why the gateway answered a request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    BadRequest,
    UnknownHost,
    UnknownPath,
    TooLarge,
    Starting,
    TooManyRequests,
    QueueFull,
    RevisionFailed,
    NoEndpoints,
    RevisionGone,
    Timeout,
    Unreachable,
    BrokenResponse,
    Panic,
}

impl Reason {
    const ALL: [(Self, &'static str); 14] = [
        (Self::BadRequest, "bad_request"),
        (Self::UnknownHost, "unknown_host"),
        (Self::UnknownPath, "unknown_path"),
        (Self::TooLarge, "too_large"),
        (Self::Starting, "starting"),
        (Self::TooManyRequests, "too_many_requests"),
        (Self::QueueFull, "queue_full"),
        (Self::RevisionFailed, "revision_failed"),
        (Self::NoEndpoints, "no_endpoints"),
        (Self::RevisionGone, "revision_gone"),
        (Self::Timeout, "timeout"),
        (Self::Unreachable, "unreachable"),
        (Self::BrokenResponse, "broken_response"),
        (Self::Panic, "panic"),
    ];
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $metric:literal, $help:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct $name {
            $(pub(crate) $field: Counter,)*
            pub(crate) more: More,
        }

        impl $name {
            fn counters(all: &[Self]) -> Vec<MetricFamily> {
                let sum = |of: fn(&Self) -> u64| all.iter().map(of).sum();
                vec![$(MetricFamily::counter(concat!("gateway_", $metric), $help, sum(|one| one.$field.read())),)*]
            }
        }
    };
}

counters! {
    /// What one data thread counts.
    ThreadCounters {
        requests: "requests", "Requests of clients taken in";
        dialled: "instance_connections_opened", "Connections opened to instances";
        dial_failures: "instance_connection_failures", "Connections to instances that could not be opened";
        reused: "instance_connections_reused", "Requests sent over a connection to an instance that was kept";
        spoilt: "instance_connections_spoilt", "Kept connections passed over because their instance had closed them";
        repeated: "requests_repeated", "Requests sent once more after a kept connection ended without an answer";
        expired: "responses_expired", "Responses given up at their revision's timeout after they had begun";
        upgrades: "connections_upgraded", "Client connections that left HTTP, such as WebSockets";
        prepared: "routes_prepared", "Hosts prepared for use by a data thread";
        confirmed: "routes_confirmed", "Prepared hosts that a new table left as they were";
    }
}

/// What a data thread counts by a label, and what is there at the moment.
#[derive(Debug, Default)]
pub(crate) struct More {
    classes: [Counter; CLASSES.len()],
    reasons: [Counter; Reason::ALL.len()],
    pub(crate) in_flight: Gauge,
}

impl ThreadCounters {
    /// Counts a response to a client.
    pub(crate) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.more.classes[class].count();
    }

    /// Counts a response the gateway made itself.
    pub(crate) fn refused(&self, reason: Reason) {
        self.more.reasons[reason as usize].count();
    }
}

/// All counts of a gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) threads: Box<[ThreadCounters]>,
    pub(crate) accepted: Counter,
    pub(crate) accept_failures: Counter,
    pub(crate) refused_total: Counter,
    pub(crate) refused_address: Counter,
    pub(crate) stalled: Counter,
    pub(crate) panics: Counter,
    pub(crate) tables: Counter,
    pub(crate) wakes: Counter,
    pub(crate) wakes_unsent: Counter,
    pub(crate) reports_dropped: Counter,
    pub(crate) hints_dropped: Counter,
    pub(crate) waiting: Gauge,
    pub(crate) upgraded: Gauge,
}

impl Metrics {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            threads: (0..threads).map(|_| ThreadCounters::default()).collect(),
            accepted: Counter::default(),
            accept_failures: Counter::default(),
            refused_total: Counter::default(),
            refused_address: Counter::default(),
            stalled: Counter::default(),
            panics: Counter::default(),
            tables: Counter::default(),
            wakes: Counter::default(),
            wakes_unsent: Counter::default(),
            reports_dropped: Counter::default(),
            hints_dropped: Counter::default(),
            waiting: Gauge::default(),
            upgraded: Gauge::default(),
        }
    }

    /// Everything counted here.
    pub(crate) fn read(&self) -> Vec<MetricFamily> {
        // Every field by name: one that is added must be told.
        let Self {
            threads,
            accepted,
            accept_failures,
            refused_total: _,
            refused_address: _,
            stalled,
            panics,
            tables,
            wakes,
            wakes_unsent,
            reports_dropped,
            hints_dropped,
            waiting,
            upgraded,
        } = self;
        let mut all = ThreadCounters::counters(threads);
        all.extend(self.labelled());
        let singles = [
            ("gateway_connections_accepted", "Client connections accepted", accepted),
            ("gateway_accept_failures", "Client connections that could not be accepted", accept_failures),
            ("gateway_clients_stalled", "Client connections closed because their client took nothing", stalled),
            ("gateway_panics", "Panics caught; each cost one request, connection or turn", panics),
            ("gateway_tables_applied", "Routing tables put in force", tables),
            ("gateway_wakes", "Calls for an instance of a revision that has none", wakes),
            ("gateway_wakes_unsent", "Calls that found their channel full and are repeated", wakes_unsent),
            ("gateway_reports_dropped", "Reports to the autoscaler that nobody read", reports_dropped),
            ("gateway_hints_dropped", "Instances announced ahead of the table that found no room", hints_dropped),
        ];
        all.extend(singles.map(|(name, help, counter)| MetricFamily::counter(name, help, counter.read())));
        let in_flight: i64 = threads.iter().map(|thread| thread.more.in_flight.read()).sum();
        let flying = "Requests in the system, waiting ones and upgraded connections included";
        let gauges = [
            ("gateway_requests_in_flight", flying, in_flight),
            ("gateway_requests_waiting", "Requests that wait for a place in an instance", waiting.read()),
            ("gateway_connections_upgraded_open", "Client connections that left HTTP", upgraded.read()),
        ];
        // Threads count one after the other, so a sum may be seen below zero for a moment.
        all.extend(
            gauges.map(|(name, help, value)| MetricFamily::gauge(name, help, u64::try_from(value).unwrap_or(0))),
        );
        all
    }

    fn labelled(&self) -> [MetricFamily; 3] {
        let sum = |of: &dyn Fn(&More) -> u64| self.threads.iter().map(|thread| of(&thread.more)).sum::<u64>();
        let classes = CLASSES.into_iter().enumerate();
        let classes = classes.map(|(at, class)| (class.to_owned(), sum(&|more| more.classes[at].read())));
        let reasons = Reason::ALL.into_iter();
        let reasons =
            reasons.map(|(reason, name)| (name.to_owned(), sum(&|more| more.reasons[reason as usize].read())));
        let refused = [("all", &self.refused_total), ("address", &self.refused_address)];
        let refused = refused.map(|(bound, counter)| (bound.to_owned(), counter.read()));
        let help = "Client connections refused, by the bound that was reached";
        [
            MetricFamily::by(
                "gateway_responses",
                "Responses by class of their status",
                MetricKind::Counter,
                "class",
                classes,
            ),
            MetricFamily::by(
                "gateway_own_responses",
                "Responses the gateway made",
                MetricKind::Counter,
                "reason",
                reasons,
            ),
            MetricFamily::by("gateway_connections_refused", help, MetricKind::Counter, "bound", refused),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_number_is_named_once_and_threads_add_up() {
        let metrics = Metrics::new(2);
        metrics.threads[0].refused(Reason::QueueFull);
        metrics.threads[1].refused(Reason::QueueFull);
        metrics.threads[1].answered(StatusCode::SERVICE_UNAVAILABLE);
        let all = metrics.read();
        let mut names = BTreeSet::new();
        for metric in &all {
            assert!(names.insert(metric.name) && metric.name.starts_with("gateway_"), "{metric:?}");
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{metric:?}");
        }
        let samples = || all.iter().flat_map(|metric| &metric.samples);
        let value = |label: (&str, &str)| {
            let labels =
                |labels: &[(&str, String)]| labels.iter().any(|(name, value)| (*name, value.as_str()) == label);
            samples().find(|sample| labels(&sample.labels)).map(|sample| sample.value)
        };
        assert_eq!(value(("reason", "queue_full")), Some(2.0));
        assert_eq!(value(("class", "5xx")), Some(1.0));
    }

    #[test]
    fn reasons_are_counted_at_their_own_place() {
        assert!(Reason::ALL.iter().enumerate().all(|(at, (reason, _))| *reason as usize == at));
    }
}
