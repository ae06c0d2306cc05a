//! What the data plane counts about itself.

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
    /// One more, until the guard is dropped.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.0.fetch_add(1, Relaxed);
        Entered(self)
    }

    pub(crate) fn read(&self) -> u64 {
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

macro_rules! counters {
    ($($field:ident: $metric:literal, $help:literal;)*) => {
        /// All counts.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics {
            $(pub(crate) $field: Counter,)*
            classes: [Counter; 3],
            pub(crate) requests: Gauge,
            pub(crate) in_flight: Gauge,
            pub(crate) waiting: Gauge,
        }

        impl Metrics {
            fn counters(&self) -> Vec<MetricFamily> {
                vec![$(MetricFamily::counter(concat!("broker_", $metric), $help, self.$field.read()),)*]
            }
        }
    };
}

counters! {
    accepted: "events_accepted", "Events taken and kept, replies among them";
    recovered: "events_recovered", "Events found at a start whose deliveries were not all known to be done";
    over_part: "events_over_part", "Messages of events that were refused because what waits in their namespace has its part of the event log";
    matched: "events_matched", "Pairs of an event and a subscription that it was matched to";
    filters_exhausted: "filters_exhausted", "Events that a filter would have taken more work for than it may, and did not let through";
    put_aside: "events_put_aside", "Events put aside for a subscriber that was behind";
    delivered: "events_delivered", "Deliveries that a subscriber took";
    replies: "replies_delivered", "Replies that were sent on or kept";
    failed: "attempts_failed", "Attempts of deliveries that failed";
    held_back: "deliveries_held_back", "Times that a delivery to a broker or channel waited for room in the event log, or in that of this process";
    retried: "attempts_repeated", "Attempts of deliveries that followed a failed one";
    dead_letters: "dead_letters_sent", "Events that a dead letter sink took";
    kept_dead_letters: "dead_letters_kept", "Dead letters without a sink that took them, kept in the stream for those";
    redriven: "dead_letters_redriven", "Kept dead letters that were delivered again on request";
    replayed: "events_replayed", "Kept events that were delivered again on request";
    dropped: "dead_letters_dropped", "Kept dead letters that were dropped on request";
    requests_answered: "requests_answered", "Requests to RequestReplies that an event answered";
    requests_unanswered: "requests_unanswered", "Requests to RequestReplies that no event answered in time";
    jobs: "job_sink_events", "Events that a JobSink took: each has its Job";
    logged: "log_sink_events", "Events that an IntegrationSink wrote into the log";
    logs_over_part: "log_sink_over_part", "Messages of events that were refused because the IntegrationSinks of their namespace had written their part into the log";
    answers_late: "answers_late", "Events that answer a request to a RequestReply for which nobody waits any more";
    out_of_hops: "events_out_of_hops", "Events refused because they went through brokers and channels too often";
    lost: "events_lost", "Kept events that are damaged; each is named in the log";
    unread: "events_unread", "Kept events that the system could not read, and that are tried again";
    panics: "panics", "Panics, each of which cost one delivery, one request or one turn of a broker or channel";
}

impl Metrics {
    /// Counts an answer to a sender.
    pub(crate) fn answered(&self, status: StatusCode) {
        let class = match status.as_u16() {
            ..400 => 0,
            400..500 => 1,
            500.. => 2,
        };
        self.classes[class].count();
    }

    pub(crate) fn read(&self) -> Vec<MetricFamily> {
        let mut families = self.counters();
        let classes = ["2xx", "4xx", "5xx"].into_iter().zip(&self.classes);
        families.push(MetricFamily::by(
            "broker_responses",
            "Answers to senders",
            MetricKind::Counter,
            "class",
            classes.map(|(class, counter)| (class.to_owned(), counter.read())),
        ));
        families.push(MetricFamily::gauge("broker_requests", "Requests being answered", self.requests.read()));
        let help = "Deliveries under way";
        families.push(MetricFamily::gauge("broker_deliveries_in_flight", help, self.in_flight.read()));
        let help = "Deliveries that wait until others of their namespace, or of all, end";
        families.push(MetricFamily::gauge("broker_deliveries_waiting", help, self.waiting.read()));
        families
    }
}
