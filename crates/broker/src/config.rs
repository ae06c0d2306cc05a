//! Settings of the data plane, and their checks.

use std::{net::IpAddr, time::Duration};

/// Bounds and times. Start from [`Config::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most bytes of an event's message, and of a reply; larger ones are answered 413, or are a failed delivery. At most
    /// what the event log takes as a payload, less 128 KiB for what is kept beside it.
    pub max_event_bytes: usize,
    /// Most bytes of requests that are being taken in at a time, and of answers of RequestReplies that their clients have not
    /// read; beyond them senders are answered 503.
    pub max_bytes_in_flight: usize,
    /// Most client connections at a time; more are closed at once.
    pub max_connections: usize,
    /// Most requests at a time; more are answered 503.
    pub max_requests: usize,
    /// Most requests to RequestReplies that wait for an answer at a time; more are answered 503.
    pub max_waiting: usize,
    /// Most attempts of deliveries under way at a time, each of which has a connection; those beyond wait, and their events
    /// wait on disk.
    pub max_attempts: usize,
    /// Most bytes of events that are read for attempts, and the same again of replies that are being read; what finds no
    /// room waits.
    pub max_delivery_bytes: usize,
    /// Most bytes that IntegrationSinks write into the log in ten seconds, of one namespace a part of what the others leave;
    /// beyond them senders are answered 503, and deliveries wait.
    pub max_log_bytes: usize,
    /// Of what all have together, one may have one part in so many: a client of connections, requests and bytes that are
    /// taken in, a namespace of attempts, their bytes and requests that wait. Of attempts and their bytes a fourth is kept for
    /// namespaces that have nothing.
    pub parts: usize,
    /// Most time for an attempt of a delivery that says nothing of it; upstream waits for ever.
    pub attempt_timeout: Duration,
    /// Most bytes of a request's head; larger ones are answered 431.
    pub max_header_bytes: usize,
    /// Most time for a request's head to arrive, for the first from when its connection is made, and for a connection to
    /// stay without a request.
    pub header_read_timeout: Duration,
    /// Most time for a request's body to arrive, however steadily it does; then it is answered 408. And for a client to take
    /// nothing of an answer; then its connection is closed.
    pub body_read_timeout: Duration,
    /// What `Retry-After` says with a 503.
    pub retry_after: Duration,
    /// Hops of an event through brokers.
    pub max_hops: i32,
    /// Most time for a connection to a subscriber to open.
    pub connect_timeout: Duration,
    /// Whether addresses may be sent to that only the machine reaches, such as 127.0.0.1 and those of its link, or that are
    /// many. Where those who say where events go are not trusted with the machine, they may not.
    pub loopback: bool,
    /// An address that may be sent to all the same: where pods reach the machine.
    pub gateway: Option<IpAddr>,
    /// Ports of the machine's own addresses that may be sent to all the same: where everybody may ask the gateway.
    pub open_ports: Vec<u16>,
    /// Most idle connections kept to one subscriber.
    pub idle_per_subscriber: usize,
    /// How long they are kept. Below the keep-alive time of common servers (5 s).
    pub idle_timeout: Duration,
    /// Most events at a time that a subscriber is sent of which it is not known how many it takes.
    pub max_concurrency: u32,
    /// Events of a broker or channel that one subscriber may be behind with before they are put aside for it; at most
    /// 1024.
    pub window: usize,
    /// How long deliveries under way are waited for at the end.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_event_bytes: (16 << 20) - BESIDE,
            max_bytes_in_flight: 256 << 20,
            max_connections: 16_384,
            max_requests: 16_384,
            max_waiting: 4096,
            max_attempts: 8192,
            max_delivery_bytes: 256 << 20,
            max_log_bytes: 2 << 20,
            parts: 4,
            attempt_timeout: Duration::from_secs(600),
            max_header_bytes: 128 << 10,
            header_read_timeout: Duration::from_secs(60),
            body_read_timeout: Duration::from_secs(60),
            retry_after: Duration::from_secs(1),
            max_hops: 255,
            connect_timeout: Duration::from_secs(5),
            loopback: true,
            gateway: None,
            open_ports: Vec::new(),
            idle_per_subscriber: 100,
            idle_timeout: Duration::from_secs(4),
            max_concurrency: 256,
            window: 256,
            grace: Duration::from_secs(10),
        }
    }
}

/// What is kept beside an event's data at most.
const BESIDE: usize = 128 << 10;

/// Why a [`Config`] is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field} must be {wanted}")]
pub struct ConfigError {
    /// Name of the field.
    pub field: &'static str,
    /// What it should have been.
    pub wanted: &'static str,
}

impl Config {
    /// What one may have of what all have together.
    pub(crate) fn part(&self, all: usize) -> usize {
        (all / self.parts).max(1)
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// For the first field that is out of its range.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let rules = [
            (self.max_event_bytes >= 64 << 10, "max_event_bytes", "at least 65536: smaller events must be taken"),
            (
                self.max_bytes_in_flight >= self.max_event_bytes.saturating_add(self.max_header_bytes),
                "max_bytes_in_flight",
                "at least max_event_bytes and max_header_bytes together",
            ),
            (self.max_connections > 0, "max_connections", "at least 1"),
            (self.max_requests > 0, "max_requests", "at least 1"),
            (self.max_waiting > 0, "max_waiting", "at least 1"),
            (self.max_attempts > 0, "max_attempts", "at least 1"),
            (self.max_delivery_bytes >= self.max_event_bytes, "max_delivery_bytes", "at least max_event_bytes"),
            (self.max_log_bytes > 0, "max_log_bytes", "at least 1"),
            (self.parts > 0, "parts", "at least 1"),
            (!self.attempt_timeout.is_zero(), "attempt_timeout", "more than nothing"),
            (self.max_header_bytes >= 8 << 10, "max_header_bytes", "at least 8192"),
            (self.max_hops > 0, "max_hops", "at least 1"),
            (self.max_concurrency > 0, "max_concurrency", "at least 1"),
            ((1..=1024).contains(&self.window), "window", "1 to 1024"),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, wanted)) => Err(ConfigError { field, wanted }),
            None => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fine_and_what_is_out_of_range_is_named() {
        assert!(Config::default().checked().is_ok());
        let refused = Config { window: 5000, ..Config::default() }.checked().expect_err("too many");
        assert_eq!(refused.to_string(), "window must be 1 to 1024");
    }
}
